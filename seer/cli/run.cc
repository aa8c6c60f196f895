// seer run: the main job. Gates are distilled for a model on a text, then dense and learned sparse
// attention are shown side by side on the part of the text that was held out.

#include <cstdio>
#include <ctime>
#include <filesystem>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/bench/bench.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/eval/head_picture.h"
#include "seer/eval/perplexity.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/train/distill.h"

namespace seer::cli {
namespace {

namespace fs = std::filesystem;

struct RunArgs {
  ModelArgs model;
  GateArgs gate;
  SelectArgs select;
  std::string text, out, gates;
  std::vector<std::string> methods{"dense", "seer", "untrained", "streaming", "random"};
  int64_t steps = 120, length = 8192, windows = 2;
  double learning_rate = 1e-2;
  uint64_t seed = 1;
};

std::string default_text() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return program.parent_path() / "default_text.txt";
}

std::string default_out() {
  const std::time_t now = std::time(nullptr);
  char name[64];
  std::strftime(name, sizeof name, "runs/%Y%m%d-%H%M%S", std::localtime(&now));
  return name;
}

// The text as tokens, its last part held out for the comparison.
struct Split {
  std::vector<int32_t> train;
  eval::Windows held_out;
};

// As long as asked for, or the longest multiple of the block that the text has room for.
int64_t fitting_length(const RunArgs& a, int64_t tokens) {
  const int64_t room =
      tokens / (a.windows + 2) / a.gate.config.block_size * a.gate.config.block_size;
  const int64_t least = 4 * a.gate.config.block_size;
  SEER_CHECK(room >= least, a.text, " has ", tokens, " tokens, want at least ",
             least * (a.windows + 2), ": choose a longer text");
  return std::min(a.length, room);
}

Split split_text(const RunArgs& a, const io::Tokenizer& tokenizer, int64_t vocab_size) {
  for (const auto id : {tokenizer.bos_id(), tokenizer.eos_id()}) {  // they stand around texts
    if (id) io::check_token_ids({&*id, 1}, vocab_size, a.model.model, &tokenizer);
  }
  std::vector<int32_t> ids;
  io::for_each_document(a.text, [&](std::string&& text) {
    const auto more = tokenizer.encode(text, false);
    io::check_token_ids(more, vocab_size, a.text, &tokenizer);
    ids.insert(ids.end(), more.begin(), more.end());
  });
  const auto tokens = static_cast<int64_t>(ids.size());
  Split split;
  split.held_out.length = fitting_length(a, tokens);
  const auto bos = tokenizer.bos_id();
  const int64_t body = split.held_out.length - (bos ? 1 : 0);
  const int64_t train = tokens - a.windows * body;
  split.train.assign(ids.begin(), ids.begin() + train);
  for (int64_t w = 0; w < a.windows; ++w) {
    std::vector<int32_t> window;
    if (bos) window.push_back(*bos);
    const auto begin = ids.begin() + train + w * body;
    window.insert(window.end(), begin, begin + body);
    split.held_out.ids.push_back(std::move(window));
  }
  return split;
}

models::Gates distil(const RunArgs& a, const models::Decoder& model, const Split& split,
                     const io::Tokenizer& tokenizer) {
  train::DistillSettings settings;
  settings.tokenizer = a.model.model;
  settings.gate = a.gate.config;
  settings.length = std::min<int64_t>(split.held_out.length, 4096);
  settings.sequences = 1;
  settings.learning_rate = a.learning_rate;
  settings.seed = a.seed;
  settings.loop.out = fs::path(a.out) / "gates";
  settings.loop.steps = a.steps;
  settings.loop.restart = true;
  settings.data.synthetic_share = 0;
  train::distill(model, split.train, tokenizer, settings);
  return models::Gates::load(settings.loop.out, model);
}

}  // namespace

int run(int argc, char** argv, int first) {
  RunArgs a;
  a.text = default_text();
  Args args("run",
            "Distils gates for a model on a text, then compares dense and learned sparse attention "
            "on the held-out end of the text.");
  a.model.add(args);
  args.add("text", a.text, message("a text: ", io::kTextFiles));
  args.output_folder("out", a.out, "folder of the results; default: runs/<time>");
  args.add("length", a.length, range(2, limits::kTokens),
           "tokens of each window of the comparison, at most");
  args.add("windows", a.windows, range(1, limits::kSequences), "windows of the comparison");
  args.add("methods", a.methods, one_of(method_names()), "what is compared");
  a.gate.add(args);
  args.add("gates", a.gates, "folder of gates to use instead of distilling");
  a.model.add_foreign_gates(args);
  args.add("steps", a.steps, range(1, limits::kSteps),
           "steps of distillation, a window of at most 4096 tokens each");
  args.add("learning-rate", a.learning_rate, above(0, 100), "of distillation");
  args.add("seed", a.seed, at_least(0), "of gates, their training and random blocks");
  a.select.add(args, {0.5, 0.7, 0.9});
  args.when_read([&] { io::check_text_file(a.text); });
  if (!args.parse(argc, argv, first)) return 0;
  if (a.out.empty()) a.out = default_out();

  a.model.block = a.gate.config.block_size;
  const models::Decoder model = a.model.load();
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const Split split = split_text(a, tokenizer, model.config().vocab_size);
  std::printf("seer run: %s, %s (%zu tokens to learn from, %zu x %lld held out)\n",
              a.model.model.c_str(), a.text.c_str(), split.train.size(), split.held_out.ids.size(),
              static_cast<long long>(split.held_out.length));
  std::fflush(stdout);

  const models::Gates gates = a.gates.empty()
                                  ? distil(a, model, split, tokenizer)
                                  : std::move(*load_gates(a.gates, a.model, model, true));
  const auto methods = make_methods(a.methods, a.select, gates.config().block_size, a.seed);
  std::vector<eval::Row> rows;
  {
    Progress progress("comparing",
                      static_cast<int64_t>(methods.size() * split.held_out.ids.size()));
    rows = eval::compare(model, &gates, methods, split.held_out, [&] { progress.advance(); });
  }
  const fs::path out = a.out;
  const at::Tensor ids = eval::ids_of(split.held_out.ids[0], model.device());
  const auto shown = a.select.selections().back();
  eval::draw_heads(eval::capture_heads(model, gates, ids, shown, 4),
                   "true map, gate, blocks at " + eval::to_text(eval::setting_of(shown)),
                   out / "heads.png");

  nlohmann::json json = bench::record("run", argc, argv, eval::to_json(rows), model.device());
  json["model"] = a.model.model;
  json["text"] = a.text;
  json["settings"] = args.settings();
  write_json(out / "run.json", json);
  std::fputs(eval::to_table(rows).c_str(), stdout);
  std::printf("\npicture  %s\nresults  %s\n", (out / "heads.png").c_str(),
              (out / "run.json").c_str());
  if (a.gates.empty()) {
    std::printf("gates    %s\nnext     seer generate --model %s --gates %s --prompt-file FILE\n",
                (out / "gates").c_str(), a.model.model.c_str(), (out / "gates").c_str());
  }
  return 0;
}

}  // namespace seer::cli
