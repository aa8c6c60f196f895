// seer eval heads: what each head loses where its gate chooses its blocks.

#include <cstdio>
#include <exception>

#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/head_losses.h"
#include "seer/models/gates/head_needs.h"

namespace seer::cli {

int eval_heads(int argc, char** argv, int first) {
  EvalArgs a;
  a.min_ratio = 1;
  a.further_windows = true;
  std::string folder, png;
  int64_t length = 8192;
  double sparsity = 0.9;
  Args args(
      "eval heads",
      "What each head loses where its gate chooses its blocks, in windows with phrases that come "
      "again: the largest weights of blocks far from a row of queries that its true map would "
      "choose and its gate leaves out, summed over blocks, mean over rows. Scores of lookup "
      "heads are those by their tokens, as these heads choose; what they lost before is in "
      "heads.json of the gates' folder.");
  args.add("gates", folder, kWhichGates);
  a.model.add_foreign_gates(args);
  args.add("length", length, range(2, limits::kTokens), "tokens of each window, BOS included");
  args.add("sparsity", sparsity, below(0, 1), "share of blocks that both leave out");
  args.output_file("png", png, "also draw it: a heat map of layers and heads, lookup heads framed");
  a.add_texts(args);
  if (!args.parse(argc, argv, first)) return 0;

  const auto config = io::ModelConfig::read(a.model.model);
  Needs needs{.trained = true, .gates = true, .sparse = true, .map = true};
  const GatesFound found = find_gates(needs, folder, a.model.model, config);
  const int block = found.config.block_size;
  needs.lookup_rank = found.config.lookup_rank;
  models::HeadNeeds::check_length(length, block);
  settle_device(a.model, config, needs, block);
  const auto windows =
      a.windows("eval heads", a.model.tokenizer(), {length}, config.vocab_size)[0].ids;
  warn_of_context("eval heads", config, length);
  std::fprintf(stderr, "seer eval heads: a pass over %s of %lld tokens; %s\n",
               counted(static_cast<int64_t>(windows.size()), "window").c_str(),
               static_cast<long long>(length), memory_text(a.model, config, length, block).c_str());

  const models::Decoder model = a.model.load();
  const auto gates = load_gates(found.folder, a.model, model);
  models::HeadNeeds measured(model, *gates, 1 - sparsity);
  uint64_t count = 0;
  std::exception_ptr failed;
  int signal = 0;
  try {
    const InterruptGuard interrupt;
    Progress progress("eval heads", static_cast<int64_t>(windows.size()));
    for (; count < windows.size() && interrupt.signal() == 0; ++count) {
      measured.add_repeated(eval::ids_of(windows[count], at::kCPU), a.seed, count,
                            [&](int64_t layer, int64_t layers) {
                              progress.part(
                                  static_cast<double>(layer) / static_cast<double>(layers),
                                  message("layer ", layer, "/", layers));
                            });
      progress.advance();
    }
    signal = interrupt.signal();
  } catch (...) {
    failed = std::current_exception();
  }
  nlohmann::json rows = nlohmann::json::array();
  std::vector<Write> writes;
  eval::HeadLosses losses;
  if (count > 0) {
    losses = {measured.lost(), gates->config().lookup_heads};
    rows.push_back(models::to_json(losses.lost, *gates));
    rows[0].update({{"gates", found.folder},
                    {"length", length},
                    {"windows", count},
                    {"block", block},
                    {"sparsity", sparsity}});
    writes.push_back(
        {"the table", [&, table = eval::to_table(losses)] { show(a.table_out(), table); }});
  }
  writes.push_back({"the results", [&] {
                      nlohmann::json json =
                          record_of("eval heads", argc, argv, rows, model.device());
                      json["settings"] = args.settings();
                      json["complete"] = !failed && signal == 0;
                      write_json(a.json, json);
                    }});
  if (count > 0 && !png.empty()) {
    writes.push_back({"the picture", [&] {
                        const std::string title = message("Lost by head, ", length, " tokens, ",
                                                          counted(count, "window"));
                        eval::head_losses_picture(losses, title).write_png(png);
                      }});
  }
  conclude(writes, failed, signal, "");
  return 0;
}

}  // namespace seer::cli
