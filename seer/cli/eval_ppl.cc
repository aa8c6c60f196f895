// seer eval ppl: perplexity of dense and sparse attention on the same documents.

#include <cstdio>

#include "seer/base/progress.h"
#include "seer/bench/bench.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/eval/perplexity.h"
#include "seer/io/text.h"

namespace seer::cli {
namespace {

struct EvalArgs {
  ModelArgs model;
  SelectArgs select;
  std::string gates, json;
  std::vector<std::string> data, methods{"dense", "seer"};
  std::vector<int64_t> lengths{8192};
  int64_t documents = 8;
  double min_ratio = 4;
  uint64_t seed = 1;
};

std::vector<std::vector<int32_t>> tokens_of(const std::vector<std::string>& files,
                                            const io::Tokenizer& tokenizer, size_t enough,
                                            int64_t limit) {
  std::vector<std::vector<int32_t>> documents;
  size_t long_ones = 0;
  for (const std::string& file : files) {
    io::for_each_document(file, [&](std::string&& text) {
      // A document gives one window: no need to tokenise more of them than asked for.
      if (static_cast<int64_t>(long_ones) >= limit) return;
      documents.push_back(tokenizer.encode(text, false));
      if (documents.back().size() >= enough) ++long_ones;
    });
  }
  return documents;
}

}  // namespace

int eval_ppl(int argc, char** argv, int first) {
  EvalArgs a;
  Args args("eval ppl", "Perplexity of a model with dense and with sparse attention.");
  a.model.add(args);
  args.add("gates", a.gates, "folder of the gates; default: `gates` in the model's folder");
  args.add("data", a.data, "texts: .txt, .jsonl, .jsonl.zst")->required();
  args.add("lengths", a.lengths, "tokens of each document, BOS included");
  args.add("documents", a.documents, "documents of each length, at most");
  args.add("min-ratio", a.min_ratio, "documents must have this many times the length");
  args.add("methods", a.methods, "of dense, seer, untrained, random, streaming, oracle");
  args.add("seed", a.seed, "of random blocks and untrained gates");
  a.select.add(args, {0.5, 0.7, 0.9});
  args.json_output(a.json);
  if (!args.parse(argc, argv, first)) return 0;
  if (a.documents < 1) throw UsageError("--documents: want 1 or more");

  const models::Decoder model = a.model.load();
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const bool wants_gates = std::find(a.methods.begin(), a.methods.end(), "seer") != a.methods.end();
  const auto gates = load_gates(a.gates, a.model.model, model, wants_gates);
  const auto methods =
      make_methods(a.methods, a.select, gates ? gates->config().block_size : 64, a.seed);

  const int64_t longest = *std::max_element(a.lengths.begin(), a.lengths.end());
  const auto documents =
      tokens_of(a.data, tokenizer, static_cast<size_t>(a.min_ratio * static_cast<double>(longest)),
                a.documents);
  std::vector<eval::Row> rows;
  for (const int64_t length : a.lengths) {
    const auto windows = eval::document_windows(documents, length, a.min_ratio, a.documents,
                                                tokenizer.bos_id().value_or(-1));
    Progress progress("eval ppl, " + std::to_string(length) + " tokens",
                      static_cast<int64_t>(windows.ids.size() * methods.size()));
    const auto some =
        eval::compare(model, gates.get(), methods, windows, [&] { progress.advance(1); });
    rows.insert(rows.end(), some.begin(), some.end());
  }
  nlohmann::json json = bench::record("eval ppl", argc, argv, eval::to_json(rows));
  json["settings"] = args.settings();
  // With JSON on standard output the table goes to the terminal's other stream.
  std::fputs(eval::to_table(rows).c_str(), a.json == "-" ? stderr : stdout);
  write_json(a.json, json);
  return 0;
}

}  // namespace seer::cli
