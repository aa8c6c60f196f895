// seer eval ppl: perplexity of dense and sparse attention on the same documents.

#include <algorithm>
#include <cstdio>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/remarks.h"

namespace seer::cli {
namespace {

void announce_ppl(const EvalArgs& a, const io::ModelConfig& config,
                  const std::vector<eval::Method>& methods,
                  const std::vector<eval::Windows>& windows, int block) {
  int64_t longest = 0, tokens = 0;
  size_t passes = 0;
  for (const eval::Windows& w : windows) {
    longest = std::max(longest, w.length);
    passes += w.ids.size() * methods.size();
    tokens += static_cast<int64_t>(w.ids.size() * methods.size()) * w.length;
  }
  warn_of_context("eval ppl", config, longest);
  std::fprintf(stderr, "seer eval ppl: %zu rows of %zu lengths, %zu passes over %s tokens; %s\n",
               methods.size() * windows.size(), windows.size(), passes,
               count_text(static_cast<double>(tokens)).c_str(),
               memory_text(a.model, config, longest, block).c_str());
}

}  // namespace

int eval_ppl(int argc, char** argv, int first) {
  EvalArgs a;
  a.methods = {"dense", "seer"};
  std::string folder;
  std::vector<int64_t> lengths{8192};
  Args args("eval ppl", "Perplexity of a model with dense and with sparse attention.");
  args.add("gates", folder, "folder of the gates; default: `gates` in the model's folder");
  args.add("lengths", lengths, range(2, limits::kTokens), "tokens of each document, BOS included");
  a.model.add_foreign_gates(args);
  a.add(args, method_names(), "what is compared", {0.5, 0.7, 0.9});
  if (!args.parse(argc, argv, first)) return 0;

  const auto config = io::ModelConfig::read(a.model.model);
  const Needs needs = needs_of(a.methods);
  const GatesFound found = find_gates(needs, folder, a.model.model, config);
  const int block = a.block_of(found);
  settle_device(a.model, config, needs, block);
  const auto methods = make_methods(a.methods, a.select, found.config, block, a.seed);
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const auto windows = a.windows("eval ppl", tokenizer, lengths, config.vocab_size);
  announce_ppl(a, config, methods, windows, needs.sparse ? block : 0);

  const models::Decoder model = a.model.load();
  const auto gates = needs.trained ? load_gates(found.folder, a.model, model) : nullptr;
  std::FILE* const out = a.table_out();
  const Compared compared =
      compare_methods(model, gates.get(), methods, windows, out,
                      [](int64_t length) { return message("eval ppl, ", length, " tokens"); });
  const auto& rows = compared.rows;
  const Write remarks{"what follows the table", [&] {
                        for (const std::string& line : eval::remarks(rows)) show_line(out, line);
                      }};
  const Write results{"the results", [&] {
                        nlohmann::json json =
                            record_of("eval ppl", argc, argv, eval::to_json(rows), model.device());
                        json["settings"] = args.settings();
                        json["complete"] = compared.complete();
                        write_json(a.json, json);
                      }};
  conclude({remarks, results}, compared.failed, compared.signal, eval::trouble(rows));
  return 0;
}

}  // namespace seer::cli
