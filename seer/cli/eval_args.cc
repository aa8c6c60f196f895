#include "seer/cli/eval_args.h"

#include <filesystem>
#include <limits>
#include <set>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"

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

}  // namespace

std::vector<std::string> names_of(const std::string& flag,
                                  const std::vector<std::string>& folders) {
  std::set<fs::path> whole;
  for (const std::string& folder : folders) {
    if (!whole.insert(fs::weakly_canonical(fs::absolute(folder))).second) {
      throw UsageError("--" + flag + " names " + folder + " twice");
    }
  }
  for (int parts = 1;; ++parts) {
    std::vector<std::string> names;
    for (const std::string& folder : folders) names.push_back(end_of(folder, parts));
    if (std::set(names.begin(), names.end()).size() == names.size()) return names;
  }
}

void EvalArgs::add_texts(Args& args) {
  model.add(args);
  args.add("data", data, message("texts: ", io::kTextFiles))->required();
  args.add("documents", documents, or_automatic(range(1, limits::kSequences), 0),
           further_windows
               ? "windows of each length, at most, of as many documents; where there are fewer, "
                 "several of each; 0: all that there are"
               : "documents of each length, at most; 0: all that are long enough");
  args.add("min-ratio", min_ratio, range(1, 1e9), "documents must have this many times the length");
  args.add("seed", seed, at_least(0),
           "of all that is drawn: random blocks, untrained gates, the tokens by which duo tells "
           "heads apart, planted questions, passages that are repeated");
  args.json_output(json);
  args.when_read([this] {
    for (const std::string& path : data) io::check_text_file(path);
  });
}

void EvalArgs::add(Args& args, const std::vector<std::string>& known, const std::string& about,
                   std::vector<double> default_sparsity) {
  add_texts(args);
  args.add("methods", methods, one_of(known), about);
  args.add(
      "block", block, or_automatic(multiple(16, 16, 128), 0),
      "tokens in a block, of methods without gates; 0: as the gates have it, 64 without gates");
  select.add(args, std::move(default_sparsity));
  args.when_read([this, &args] {
    check_rules(methods, select);
    if (needs_of(methods).sparse) return;
    const std::string where = "where --methods names dense attention alone";
    refuse(args, kOfSparse, where);
    refuse(args, {"block"}, where);
  });
}

int EvalArgs::block_of(const GatesFound& gates) const {
  if (gates.folder.empty()) return block == 0 ? io::GateConfig{}.block_size : block;
  const int theirs = gates.config.block_size;
  if (block != 0 && block != theirs && needs_of(methods).trained) {
    throw UsageError(message("--block ", block, ": the gates in ", gates.folder, " have blocks of ",
                             theirs, ": leave it out, or name other gates"));
  }
  return block == 0 ? theirs : block;
}

std::vector<eval::Windows> EvalArgs::windows(const char* verb, const io::Tokenizer& tokenizer,
                                             const std::vector<int64_t>& lengths,
                                             int64_t vocab_size) const {
  const int32_t bos = tokenizer.bos_id().value_or(-1);
  if (bos >= 0) io::check_token_ids({&bos, 1}, vocab_size, model.model, &tokenizer);
  const int64_t most = documents == 0 ? std::numeric_limits<int64_t>::max() : documents;
  eval::WindowCutter cutter(lengths, min_ratio, most, bos, further_windows);
  for (const std::string& file : data) {
    io::TextReader reader(file);
    while (cutter.wants_more()) {
      const auto document = reader.next();
      if (!document) break;
      const auto ids = tokenizer.encode(document->text, false);
      io::check_token_ids(ids, vocab_size, message(file, ": line ", document->place.line),
                          &tokenizer);
      cutter.add(ids);
    }
  }
  std::vector<eval::Windows> all = cutter.take();
  for (const eval::Windows& of : all) {
    if (documents == 0 || static_cast<int64_t>(of.ids.size()) == documents) continue;
    print_line(message("seer ", verb, ": warning: ", of.ids.size(), " of the ",
                       counted(documents, further_windows ? "window" : "document"),
                       " asked for: no others have ", min_ratio, " x ", of.length,
                       " tokens (--min-ratio, --documents)"));
  }
  return all;
}

Settled settle(const EvalArgs& a, const std::string& folder, const std::string& gates,
               const std::vector<std::string>& names) {
  Settled one{.args = a.model, .config = io::ModelConfig::read(folder), .needs = needs_of(names)};
  one.args.model = folder;
  one.gates = find_gates(one.needs, gates, folder, one.config);
  one.subject.lookups = one.gates.config.lookup_rank > 0;
  one.block = a.block_of(one.gates);
  if (one.needs.lookups) one.needs.lookup_rank = one.gates.config.lookup_rank;
  settle_device(one.args, one.config, one.needs, one.block);
  one.methods = make_methods(names, a.select, one.gates.config, one.block, a.seed);
  return one;
}

std::unique_ptr<Loaded> load(const Settled& one) {
  std::unique_ptr<Loaded> loaded(new Loaded{one.args.load(), nullptr});
  if (one.needs.trained) loaded->gates = load_gates(one.gates.folder, one.args, loaded->model);
  return loaded;
}

}  // namespace seer::cli
