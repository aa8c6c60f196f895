// seer eval recall: the share of attention that lies in the blocks chosen by gates and baselines, by
// layer and head.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/bench/bench.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/verbs.h"
#include "seer/eval/recall.h"
#include "seer/eval/recall_picture.h"

namespace seer::cli {
namespace {

namespace fs = std::filesystem;

// The last `parts` parts of a path.
std::string end_of(const fs::path& path, int parts) {
  const fs::path whole = fs::weakly_canonical(fs::absolute(path));
  fs::path end;
  auto part = whole.end();
  for (; parts > 0 && part != whole.begin(); --parts) end = *--part / end;
  const std::string text = end.string();  // ends with a separator: the last step joined nothing
  return text.substr(0, text.find_last_not_of('/') + 1);
}

// The folders' own names, with as many of their parents' as tell them apart.
std::vector<std::string> names_of(const std::vector<std::string>& folders) {
  std::set<fs::path> whole;
  for (const std::string& folder : folders) {
    if (!whole.insert(fs::weakly_canonical(fs::absolute(folder))).second) {
      throw UsageError("--gates names " + folder + " twice");
    }
  }
  for (int parts = 1;; ++parts) {
    std::vector<std::string> names;
    for (const std::string& folder : folders) names.push_back(end_of(folder, parts));
    if (std::set(names.begin(), names.end()).size() == names.size()) return names;
  }
}

struct GateSet {
  std::string name;
  std::unique_ptr<models::Gates> gates;  // null: the model has none, and no method needs them
};

std::vector<GateSet> load_sets(const std::vector<std::string>& folders, const EvalArgs& a,
                               const models::Decoder& model) {
  const bool required = a.wants("seer");
  std::vector<GateSet> sets;
  if (folders.empty()) {
    sets.push_back({"gates", load_gates("", a.model, model, required)});
    return sets;
  }
  const std::vector<std::string> names = names_of(folders);
  for (size_t i = 0; i < folders.size(); ++i) {
    sets.push_back({names[i], load_gates(folders[i], a.model, model, required)});
  }
  return sets;
}

// Each method at every setting; "seer" with every set of gates, the others with the first one's form.
std::vector<eval::RecallMethod> recall_methods(const EvalArgs& a,
                                               const std::vector<GateSet>& sets) {
  std::vector<eval::RecallMethod> methods;
  for (const std::string& name : a.methods) {
    const bool by_gates = name == "seer";
    for (size_t s = 0; s < (by_gates ? sets.size() : 1); ++s) {
      const models::Gates* gates = sets[s].gates.get();
      const int block = gates ? gates->config().block_size : 64;
      for (const eval::Method& method : make_methods({name}, a.select, block, a.seed)) {
        methods.push_back({method.sparse, gates, by_gates ? sets[s].name : ""});
      }
    }
  }
  return methods;
}

}  // namespace

int eval_recall(int argc, char** argv, int first) {
  EvalArgs a;
  a.methods = {"seer", "oracle", "streaming", "random"};
  std::vector<std::string> folders;
  std::string png;
  int64_t length = 8192;
  Args args(
      "eval recall",
      "Share of the model's attention that lies in the blocks chosen by gates and baselines, by "
      "layer and head.");
  args.add(
      "gates", folders,
      "folders of gates to compare; default: `gates` in the model's folder. Baselines take the "
      "block size of the first");
  a.model.add_foreign_gates(args);
  args.add("length", length, range(2, limits::kTokens), "tokens of each document, BOS included");
  args.output_file("png", png,
                   "also draw it: a heat map of layers and heads for each row of the table");
  a.add(args, method_names(), "oracle: by a block's largest weight, not the most mass",
        {0.5, 0.7, 0.9});
  args.when_read([&] {
    if (a.wants("dense")) throw UsageError("--methods: dense attention has recall 1, leave it out");
    if (!folders.empty()) names_of(folders);
  });
  if (!args.parse(argc, argv, first)) return 0;

  const models::Decoder model = a.model.load();
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const auto sets = load_sets(folders, a, model);
  const auto methods = recall_methods(a, sets);
  const eval::Windows windows = a.windows(tokenizer, {length}, model.config().vocab_size)[0];
  std::vector<eval::RecallRow> rows;
  {
    Progress progress("eval recall",
                      static_cast<int64_t>(windows.ids.size()) * model.config().num_layers);
    rows = eval::measure_recall(model, methods, windows, [&] { progress.advance(1); });
  }
  nlohmann::json json =
      bench::record("eval recall", argc, argv, eval::to_json(rows), model.device());
  json["settings"] = args.settings();
  // With JSON on standard output the table goes to the terminal's other stream.
  std::fputs(eval::to_table(rows).c_str(), a.json == "-" ? stderr : stdout);
  if (!png.empty()) {
    eval::recall_picture(rows, message("recall of attention, ", length, " tokens, ",
                                       windows.ids.size(), " documents"))
        .write_png(png);
  }
  write_json(a.json, json);
  return 0;
}

}  // namespace seer::cli
