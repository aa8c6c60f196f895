// seer eval recall: the share of attention that lies in the blocks chosen by gates and baselines, by
// layer and head.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/recall.h"
#include "seer/eval/recall_picture.h"
#include "seer/eval/remarks.h"

namespace seer::cli {
namespace {

struct GateSet {
  std::string name;
  GatesFound found;                      // no folder: the model has none, and no method needs them
  std::unique_ptr<models::Gates> gates;  // null where no method needs them
};

// The sets of gates, their weights not read yet. Only methods of trained gates compare several.
std::vector<GateSet> find_sets(const std::vector<std::string>& folders, const Needs& needs,
                               const EvalArgs& a, const io::ModelConfig& config) {
  std::vector<GateSet> sets;
  if (folders.empty()) {
    sets.push_back({"gates", find_gates(needs, "", a.model.model, config), nullptr});
    return sets;
  }
  const std::vector<std::string> names = names_of("gates", folders);
  for (size_t i = 0; i < folders.size(); ++i) {
    sets.push_back({names[i], find_gates(needs, folders[i], a.model.model, config), nullptr});
  }
  return sets;
}

// Each method at every setting; those of trained gates with every set of them, the others with the first one's form.
std::vector<eval::RecallMethod> recall_methods(const EvalArgs& a, int block,
                                               const std::vector<GateSet>& sets) {
  std::vector<eval::RecallMethod> methods;
  for (const std::string& name : a.methods) {
    const bool by_gates = needs_of({name}).trained;
    for (const GateSet& set : sets) {
      const int its_block = by_gates ? set.found.config.block_size : block;
      for (const eval::Method& method :
           make_methods({name}, a.select, set.found.config, its_block, a.seed)) {
        methods.push_back(
            {method.sparse, by_gates ? set.gates.get() : nullptr, by_gates ? set.name : ""});
      }
      if (!by_gates) break;
    }
  }
  return methods;
}

struct RecallArgs : EvalArgs {
  std::vector<std::string> folders;
  std::string png;
  int64_t length = 8192;
};

// What will be done, before it is begun.
void announce_recall(const RecallArgs& a, const io::ModelConfig& config,
                     const eval::Windows& windows, size_t methods, int block) {
  warn_of_context("eval recall", config, a.length);
  std::fprintf(stderr, "seer eval recall: %s from a pass over %s of %lld tokens; %s\n",
               counted(static_cast<int64_t>(methods), "row").c_str(),
               counted(static_cast<int64_t>(windows.ids.size()), "document").c_str(),
               static_cast<long long>(a.length),
               memory_text(a.model, config, a.length, block).c_str());
}

}  // namespace

int eval_recall(int argc, char** argv, int first) {
  RecallArgs a;
  a.methods = {"seer", "oracle", "streaming", "random"};
  Args args(
      "eval recall",
      "Share of the model's attention that lies in the blocks chosen by gates and baselines, by "
      "layer and head.");
  args.add("gates", a.folders,
           "folders of gates to compare; default: `gates` in the model's folder, or those that "
           "ship for it. Baselines take the "
           "block size of the first");
  a.model.add_foreign_gates(args);
  args.add("length", a.length, range(2, limits::kTokens), "tokens of each document, BOS included");
  args.output_file("png", a.png,
                   "also draw it: a heat map of layers and heads for each row of the table");
  a.add(args, method_names(), "oracle: by a block's largest weight, not the most mass",
        {0.5, 0.7, 0.9});
  args.when_read([&] {
    if (std::find(a.methods.begin(), a.methods.end(), "dense") != a.methods.end()) {
      throw UsageError("--methods: dense attention has recall 1, leave it out");
    }
    if (!a.folders.empty()) names_of("gates", a.folders);
    if (a.folders.size() > 1 && !needs_of(a.methods).trained) {
      throw UsageError(
          "--gates names several folders, and no method of --methods takes their "
          "gates: name one, whose block size the methods take");
    }
  });
  if (!args.parse(argc, argv, first)) return 0;

  const auto config = io::ModelConfig::read(a.model.model);
  Needs needs = needs_of(a.methods);
  needs.map = true;
  auto sets = find_sets(a.folders, needs, a, config);
  for (const GateSet& set : sets) a.block_of(set.found);  // refuses another one than theirs
  const int block = a.block_of(sets[0].found);
  const auto rank_of = [&](const GateSet& set) {
    return needs.lookups ? set.found.config.lookup_rank : 0;
  };
  std::set<std::pair<int, int>> forms{{block, rank_of(sets[0])}};
  for (const GateSet& set : sets) {
    if (needs.trained) forms.insert({set.found.config.block_size, rank_of(set)});
  }
  for (const auto& [its_block, rank] : forms) {
    needs.lookup_rank = rank;
    settle_device(a.model, config, needs, its_block);
    if (a.model.resolved_device().is_cpu()) a.model.device = "cpu";  // for all of them
  }
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const auto windows = a.windows("eval recall", tokenizer, {a.length}, config.vocab_size)[0];
  announce_recall(a, config, windows, recall_methods(a, block, sets).size(), block);

  const models::Decoder model = a.model.load();
  for (GateSet& set : sets) {
    if (needs.trained) set.gates = load_gates(set.found.folder, a.model, model);
  }
  const auto methods = recall_methods(a, block, sets);
  std::vector<eval::RecallRow> rows;
  int signal = 0;
  {
    const InterruptGuard interrupt;
    Progress progress("eval recall",
                      static_cast<int64_t>(windows.ids.size()) * model.config().num_layers);
    rows = eval::measure_recall(
        model, methods, windows, [&] { progress.advance(1); },
        [&] { return interrupt.signal() != 0; });
    signal = interrupt.signal();
  }
  const Write table{"the table", [&] {
                      show(a.table_out(), eval::to_table(rows));
                      for (const std::string& line : eval::remarks(rows)) {
                        show_line(a.table_out(), line);
                      }
                    }};
  const Write picture{"the picture", [&] {
                        if (a.png.empty() || rows.empty()) return;
                        eval::recall_picture(rows,
                                             message("Recall of attention, ", a.length, " tokens, ",
                                                     counted(rows[0].documents, "document")))
                            .write_png(a.png);
                      }};
  const Write results{"the results", [&] {
                        nlohmann::json json = record_of("eval recall", argc, argv,
                                                        eval::to_json(rows), model.device());
                        json["settings"] = args.settings();
                        json["complete"] = signal == 0;
                        write_json(a.json, json);
                      }};
  conclude({table, results, picture}, nullptr, signal, eval::trouble(rows));
  return 0;
}

}  // namespace seer::cli
