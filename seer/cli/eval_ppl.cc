// seer eval ppl: perplexity of dense and sparse attention on the same documents, also of models that were
// trained with sparse attention.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/remarks.h"

namespace seer::cli {
namespace {

namespace fs = std::filesystem;

struct PplArgs : EvalArgs {
  std::string gates;
  std::vector<std::string> joint;
  std::vector<int64_t> lengths{8192};
};

// The blocks that `seer finetune` kept while it trained the model in that folder; no rule: dense, or
// not known.
eval::Setting trained_setting(const fs::path& folder) {
  const fs::path run = folder / "run.json";
  if (!fs::exists(run)) return {};
  const nlohmann::json json = read_json(run);
  const nlohmann::json::json_pointer rule("/settings/selection/0"),
      strength("/settings/selection/1");
  if (!json.is_object() || !json.contains(strength)) return {};
  if (!json[rule].is_string() || !json[strength].is_number()) return {};
  return {json[rule], json[strength]};
}

Settled settle_joint(const PplArgs& a, const std::string& folder, const std::string& name) {
  const auto tokenizer = [](const fs::path& of) { return read_file(of / "tokenizer.json"); };
  SEER_CHECK(tokenizer(folder) == tokenizer(a.model.model), folder, " has another tokenizer than ",
             a.model.model,
             ": perplexities per token do not compare; name models of the same tokenizer");
  Settled one = settle(a, folder, "", {"dense", "seer"});
  // Files that are damaged or do not belong together are found before other models are measured.
  const auto mapped = models::Decoder::load(folder, at::ScalarType::Undefined, at::kCPU);
  models::Gates::load(one.gates.folder, mapped, a.model.foreign_gates);
  one.subject.model = name;
  one.subject.trained = trained_setting(folder);
  return one;
}

// The model, and those that were trained with sparse attention.
std::vector<Settled> settle_all(const PplArgs& a) {
  std::vector<Settled> all{settle(a, a.model.model, a.gates, a.methods)};
  if (a.joint.empty()) return all;
  std::vector<std::string> folders{a.model.model};
  folders.insert(folders.end(), a.joint.begin(), a.joint.end());
  const std::vector<std::string> names = names_of("joint", folders);
  all[0].subject.model = names[0];
  for (size_t i = 1; i < folders.size(); ++i) {
    all.push_back(settle_joint(a, folders[i], names[i]));
  }
  return all;
}

void announce_ppl(const std::vector<Settled>& models, const std::vector<eval::Windows>& windows) {
  int64_t longest = 0, tokens = 0, rows = 0, passes = 0;
  for (const eval::Windows& w : windows) longest = std::max(longest, w.length);
  for (const Settled& one : models) {
    warn_of_context("eval ppl", one.config, longest);
    rows += static_cast<int64_t>(one.methods.size() * windows.size());
    for (const eval::Windows& w : windows) {
      const auto of_length = static_cast<int64_t>(w.ids.size() * one.methods.size());
      passes += of_length;
      tokens += of_length * w.length;
    }
  }
  const Settled& first = models[0];
  std::fprintf(
      stderr, "seer eval ppl: %s, %s over %s tokens; %s\n", counted(rows, "row").c_str(),
      counted(passes, "pass", "passes").c_str(), count_text(static_cast<double>(tokens)).c_str(),
      memory_text(first.args, first.config, longest, first.needs.sparse ? first.block : 0).c_str());
}

// The first model is there before a line of the table is; each is loaded for its own measurement only.
std::vector<Candidate> candidates_of(const std::vector<Settled>& models) {
  std::vector<Candidate> candidates;
  const auto first = std::make_shared<std::unique_ptr<Loaded>>(load(models[0]));
  for (const Settled& one : models) {
    const bool is_first = candidates.empty();
    candidates.push_back({one.subject, one.methods, [=, &one](const Candidate::Use& use) {
                            const auto loaded = is_first ? std::move(*first) : load(one);
                            use(loaded->model, loaded->gates.get());
                          }});
  }
  return candidates;
}

}  // namespace

int eval_ppl(int argc, char** argv, int first) {
  PplArgs a;
  a.methods = {"dense", "seer"};
  Args args("eval ppl", "Perplexity of a model with dense and with sparse attention.");
  args.add("gates", a.gates, kWhichGates);
  args.add("joint", a.joint,
           "folders of models that `seer finetune` trained with sparse attention, their gates in "
           "them: dense and seer of each, beside the dense attention of --model");
  args.add("lengths", a.lengths, range(2, limits::kTokens),
           "tokens of each document, BOS included");
  a.model.add_foreign_gates(args);
  a.add(args, method_names(), "what is compared", {0.5, 0.7, 0.9});
  args.when_read([&a] {
    if (a.joint.empty()) return;
    for (const std::string& folder : a.joint) check_model_folder("joint", folder);
    for (const char* name : {"dense", "seer"}) {
      if (std::find(a.methods.begin(), a.methods.end(), name) == a.methods.end()) {
        throw UsageError(message("--joint compares with dense and seer of --model, and --methods ",
                                 "lacks ", name));
      }
    }
  });
  if (!args.parse(argc, argv, first)) return 0;

  const std::vector<Settled> models = settle_all(a);
  const io::ModelConfig& config = models[0].config;
  const auto windows = a.windows("eval ppl", a.model.tokenizer(), a.lengths, config.vocab_size);
  announce_ppl(models, windows);

  const std::vector<Candidate> candidates = candidates_of(models);
  std::FILE* const out = a.table_out();
  const Compared compared = compare_methods(candidates, windows, out, [](int64_t length) {
    return message("eval ppl, ", length, " tokens");
  });
  const auto& rows = compared.rows;
  const Write remarks{"what follows the table", [&] {
                        for (const std::string& line : eval::remarks(rows)) show_line(out, line);
                      }};
  const Write results{"the results", [&] {
                        nlohmann::json json = record_of("eval ppl", argc, argv, eval::to_json(rows),
                                                        models[0].args.resolved_device());
                        json["settings"] = args.settings();
                        json["complete"] = compared.complete();
                        write_json(a.json, json);
                      }};
  conclude({remarks, results}, compared.failed, compared.signal, eval::trouble(rows));
  return 0;
}

}  // namespace seer::cli
