// seer eval attention: maps of real attention, of all heads, for the viewer of a report.

#include <cstdio>

#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/cli/attention.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/attention_maps.h"
#include "seer/io/text.h"
#include "seer/report/page.h"

namespace seer::cli {

nlohmann::json attention_record(int argc, char** argv, const io::Tokenizer& tokenizer,
                                const models::Decoder& model, const models::Gates& gates,
                                const std::vector<int32_t>& ids,
                                const std::vector<torch_ops::Selection>& selections,
                                uint64_t seed) {
  const int block = gates.config().block_size;
  const models::SparseSettings settings{
      .method = "seer", .selection = {}, .block = block, .seed = seed, .even = true, .form = {}};
  nlohmann::json json = record_of(
      "eval attention", argc, argv,
      eval::attention_rows(model, gates, eval::ids_of(ids, model.device()), settings, selections),
      model.device());
  json["window"] = eval::attention_window(model, tokenizer, ids, block, selections);
  return json;
}

int eval_attention(int argc, char** argv, int first) {
  EvalArgs a;
  a.documents = 1;
  a.min_ratio = 1;
  std::string folder, html;
  int64_t length = kViewedTokens;
  Args args("eval attention",
            "Maps of real attention, of all heads, in the first text that is long enough: the true "
            "map, what gates make of it, and the blocks they choose, for the viewer of `seer "
            "report`. Where maps of all "
            "heads are more than a page should hold, layers are left out evenly.");
  a.model.add(args);
  args.add("data", a.data, message("texts: ", io::kTextFiles))->required();
  args.add("gates", folder, kWhichGates);
  a.model.add_foreign_gates(args);
  args.add("length", length, range(2, limits::kTokens), "tokens of the window, BOS included");
  a.select.add(args, {0.5, 0.7, 0.9});
  args.output_file("html", html, "also write a page with the viewer");
  args.json_output(a.json);
  args.when_read([&] {
    for (const std::string& path : a.data) io::check_text_file(path);
    check_rules({"seer"}, a.select);
    if (a.json.empty() && html.empty()) {
      throw UsageError("name a file for the maps: --json FILE, or --html FILE for their page");
    }
  });
  if (!args.parse(argc, argv, first)) return 0;

  const auto config = io::ModelConfig::read(a.model.model);
  Needs needs{.trained = true, .gates = true, .sparse = true, .map = true};
  const GatesFound found = find_gates(needs, folder, a.model.model, config);
  needs.lookup_rank = found.config.lookup_rank;
  settle_device(a.model, config, needs, found.config.block_size);
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const auto ids = a.windows("eval attention", tokenizer, {length}, config.vocab_size)[0].ids[0];
  warn_of_context("eval attention", config, length);
  const models::Decoder model = a.model.load();
  const auto gates = load_gates(found.folder, a.model, model);
  nlohmann::json json =
      attention_record(argc, argv, tokenizer, model, *gates, ids, a.select.selections(), a.seed);
  json["model"] = a.model.model;
  json["settings"] = args.settings();
  std::vector<Write> writes;
  if (!a.json.empty()) writes.push_back({"the results", [&] { write_json(a.json, json); }});
  if (!html.empty()) {
    writes.push_back({"the page", [&] {
                        const std::string page =
                            report::page_html(report::page_data("attention.json", json));
                        write_file_atomic(html, page);
                        show_page(page.size(), html, a.table_out());
                      }});
  }
  conclude(writes, {}, 0, "");
  return 0;
}

}  // namespace seer::cli
