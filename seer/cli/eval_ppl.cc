// seer eval ppl: perplexity of dense and sparse attention on the same documents.

#include <cstdio>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/bench/bench.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/verbs.h"
#include "seer/eval/perplexity.h"

namespace seer::cli {

int eval_ppl(int argc, char** argv, int first) {
  EvalArgs a;
  a.methods = {"dense", "seer"};
  std::string folder;
  std::vector<int64_t> lengths{8192};
  Args args("eval ppl", "Perplexity of a model with dense and with sparse attention.");
  args.add("gates", folder, "folder of the gates; default: `gates` in the model's folder");
  a.model.add_foreign_gates(args);
  args.add("lengths", lengths, range(2, limits::kTokens), "tokens of each document, BOS included");
  a.add(args, method_names(), "what is compared", {0.5, 0.7, 0.9});
  if (!args.parse(argc, argv, first)) return 0;

  const models::Decoder model = a.model.load();
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const auto gates = load_gates(folder, a.model, model, a.wants("seer"));
  const auto methods =
      make_methods(a.methods, a.select, gates ? gates->config().block_size : 64, a.seed);

  std::vector<eval::Row> rows;
  for (const eval::Windows& windows : a.windows(tokenizer, lengths, model.config().vocab_size)) {
    Progress progress("eval ppl, " + std::to_string(windows.length) + " tokens",
                      static_cast<int64_t>(windows.ids.size() * methods.size()));
    const auto some =
        eval::compare(model, gates.get(), methods, windows, [&] { progress.advance(1); });
    rows.insert(rows.end(), some.begin(), some.end());
  }
  nlohmann::json json = bench::record("eval ppl", argc, argv, eval::to_json(rows), model.device());
  json["settings"] = args.settings();
  // With JSON on standard output the table goes to the terminal's other stream.
  std::fputs(eval::to_table(rows).c_str(), a.json == "-" ? stderr : stdout);
  write_json(a.json, json);
  return 0;
}

}  // namespace seer::cli
