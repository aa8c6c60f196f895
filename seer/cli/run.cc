// seer run: the main job. Gates are distilled for a model on a text, then dense and learned sparse
// attention are shown side by side on the part of the text that was held out.

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <optional>

#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shell.h"
#include "seer/base/shown.h"
#include "seer/cli/attention.h"
#include "seer/cli/measured.h"
#include "seer/cli/methods.h"
#include "seer/cli/verbs.h"
#include "seer/eval/head_picture.h"
#include "seer/eval/remarks.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/report/page.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/tasks/distill.h"

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
  train::LookupSettings lookup{.windows = 2};  // more find the same heads, for seconds each
  uint64_t seed = 1;
  bool restart = false;
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
int64_t fitting_length(const RunArgs& a, int64_t tokens, int block) {
  const int64_t room = tokens / (a.windows + 2) / block * block;
  const int64_t least = 4 * block;
  SEER_CHECK(room >= least, a.text, " has ", counted(tokens, "token"), ", want at least ",
             least * (a.windows + 2), ": choose a longer text");
  return std::min(a.length, room);
}

Split split_text(const RunArgs& a, const io::Tokenizer& tokenizer, int64_t vocab_size, int block) {
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
  split.held_out.length = fitting_length(a, tokens, block);
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

// Of distillation beside windows of `length` tokens.
int64_t distill_length(int64_t length) {
  return std::min<int64_t>(length, 4096);
}

train::DistillSettings distill_settings(const RunArgs& a, int64_t length) {
  train::DistillSettings settings;
  settings.tokenizer = a.model.model;
  settings.gate = a.gate.config;
  settings.length = distill_length(length);
  settings.sequences = 1;
  settings.lookup = a.lookup;
  settings.learning_rate = a.learning_rate;
  settings.seed = a.seed;
  settings.loop.out = fs::path(a.out) / "gates";
  settings.loop.steps = a.steps;
  settings.loop.restart = a.restart;
  settings.loop.go_on = "the same command with --out " + shell_word(a.out);
  settings.data.synthetic_share = 0;
  settings.warns_of_context = false;  // announce_run() has
  return settings;
}

// What is settled before the model is loaded.
struct Plan {
  io::ModelConfig config;
  Needs needs;
  GatesFound found;  // --gates, or what ships
  bool ships;
  bool distills;  // some method needs gates, and none are given, nor ship
  int block;
  std::vector<eval::Method> methods;
};

// Settings of gates that are distilled.
const std::vector<std::string> kOfDistillation{"gate-type",    "block",  "gate-dim",
                                               "force-double", "steps",  "learning-rate",
                                               "lookup-heads", "restart"};

// Sets a.gates where gates ship.
Plan make_plan(RunArgs& a, const Args& args) {
  Plan plan{io::ModelConfig::read(a.model.model), needs_of(a.methods), {}, false, false, 0, {}};
  const bool wants_new = std::ranges::any_of(
      kOfDistillation, [&](const std::string& name) { return args.is_given(name); });
  if (plan.needs.trained && a.gates.empty() && !wants_new) {
    a.gates = shipped_gates(a.model.model);
    plan.ships = !a.gates.empty();
  }
  plan.distills = plan.needs.trained && a.gates.empty();
  plan.found = a.gates.empty() ? GatesFound{"", a.gate.config} : find_gates(a.gates, plan.config);
  plan.block = plan.found.config.block_size;
  plan.needs.map |= plan.needs.trained;  // the picture's, and that of distillation
  if (plan.needs.lookups) plan.needs.lookup_rank = plan.found.config.lookup_rank;
  if (plan.distills) {
    train::check(distill_settings(a, a.length), plan.config);
    const auto looked_for =
        train::lookup_share(a.lookup, plan.config, plan.block, distill_length(a.length));
    if (looked_for.share > 0) plan.needs.lookup_rank = a.lookup.rank;
  }
  settle_device(a.model, plan.config, plan.needs, plan.block);
  plan.methods = make_methods(a.methods, a.select, plan.found.config, plan.block, a.seed);
  return plan;
}

// What will be done, before it is begun.
void announce_run(const RunArgs& a, const Plan& plan, const Split& split) {
  const auto windows = static_cast<int64_t>(split.held_out.ids.size()),
             passes = static_cast<int64_t>(plan.methods.size()) * windows;
  const auto length = static_cast<long long>(split.held_out.length);
  show_line(stdout, message("seer run: ", a.model.model, ", ", a.text, " (", split.train.size(),
                            " tokens to learn from, ", windows, " x ", length, " held out)"));
  if (split.held_out.length < a.length) {
    std::fprintf(stderr, "seer run: windows have %lld tokens, not %lld: the text is too short\n",
                 length, static_cast<long long>(a.length));
  }
  warn_of_context("run", plan.config, length);
  if (plan.distills) {
    std::fprintf(stderr, "seer run: distils for %s of %lld tokens (%s tokens), then compares\n",
                 counted(a.steps, "step").c_str(), static_cast<long long>(distill_length(length)),
                 count_text(static_cast<double>(a.steps * distill_length(length))).c_str());
  } else if (plan.ships) {
    print_line("seer run: gates of this model ship with seer: " + a.gates +
               " (--steps N would distil new ones)");
  } else if (!plan.needs.trained) {
    std::fprintf(stderr, "seer run: no method needs trained gates: none are distilled\n");
  }
  std::fprintf(stderr, "seer run: %s, %s over %s tokens; %s\n",
               counted(static_cast<int64_t>(plan.methods.size()), "row").c_str(),
               counted(passes, "pass", "passes").c_str(),
               count_text(static_cast<double>(passes * length)).c_str(),
               memory_text(a.model, plan.config, length, plan.block).c_str());
}

report::Image picture_of(const RunArgs& a, const Plan& plan, const models::Decoder& model,
                         const models::Gates& gates, const eval::Windows& windows) {
  const at::Tensor ids = eval::ids_of(windows.ids[0], model.device());
  const models::SparseSettings settings{.method = "seer",
                                        .selection = a.select.selections().back(),
                                        .block = plan.block,
                                        .seed = a.seed,
                                        .even = true,
                                        .form = {}};
  const std::string setting = eval::to_text(eval::setting_of(settings.selection));
  return eval::head_picture(
      eval::capture_heads(model, gates, ids, settings, 4), plan.block,
      message("Heads of the model on ", windows.length, " tokens, ", setting));
}

// Gates that are given have their form, and are not trained.
void refuse_flags_of_distillation(const Args& args) {
  for (const std::string& name : kOfDistillation) {
    if (args.has_flag(name)) {
      throw UsageError(message("--", name,
                               " is of gates that are distilled, and --gates names a "
                               "folder with gates: leave one of both out"));
    }
  }
}

// The command that goes on from here, with a prompt of the held-out text beside it.
std::string next_command(const RunArgs& a, const char* program, const std::string& prompt_file) {
  const std::string folder = a.gates.empty() ? (fs::path(a.out) / "gates").string() : a.gates;
  std::string command = shell_word(program) + " generate --model " + shell_word(a.model.model) +
                        " --gates " + shell_word(folder) + " --prompt-file " +
                        shell_word(prompt_file) + " --raw --max-new-tokens 64";
  if (a.model.foreign_gates && !a.gates.empty()) command += " --foreign-gates";
  if (a.model.stream) command += " --stream";
  if (a.model.device != "auto") command += " --device " + shell_word(a.model.device);
  return command;
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
  args.add("gates", a.gates,
           "folder of gates to use instead of distilling; default: those that ship for the model "
           "(assets/gates), where no setting of new ones is given");
  a.model.add_foreign_gates(args);
  args.add("steps", a.steps, range(1, limits::kSteps),
           "steps of distillation, a window of at most 4096 tokens each");
  args.add("learning-rate", a.learning_rate, above(0, 100), "of distillation");
  args.add("lookup-heads", a.lookup.share, or_automatic(range(0, 1), -1),
           "share of heads that choose blocks by tokens; 0: none; -1: 0.1 where some can be found");
  args.add("seed", a.seed, at_least(0), "of gates, their training and random blocks");
  args.flag("restart", a.restart, "distil anew, though --out holds a run of these settings");
  a.select.add(args, {0.5, 0.7, 0.9});
  args.when_read([&] {
    io::check_text_file(a.text);
    check_rules(a.methods, a.select);
    if (!a.gates.empty()) refuse_flags_of_distillation(args);
  });
  if (!args.parse(argc, argv, first)) return 0;
  if (a.out.empty()) {
    a.out = default_out();
    check_folder_of("out", a.out);
  }
  train::check_run_folder(a.out, "run",
                          {"heads.png", "attention.json", "report.html", "prompt.txt"});

  const Plan plan = make_plan(a, args);
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const Split split = split_text(a, tokenizer, plan.config.vocab_size, plan.block);
  announce_run(a, plan, split);

  const models::Decoder model = a.model.load();
  std::optional<models::Gates> gates;
  if (plan.distills) {
    const auto settings = distill_settings(a, split.held_out.length);
    train::distill(model, split.train, tokenizer, settings);
    gates = models::Gates::load(settings.loop.out, model);
  } else if (plan.needs.trained) {
    gates = std::move(*load_gates(a.gates, a.model, model));
  }
  const models::Gates* const used = gates ? &*gates : nullptr;
  const Compared compared =
      compare_methods({{{}, plan.methods, [&](const Candidate::Use& use) { use(model, used); }}},
                      {split.held_out}, stdout, [](int64_t) { return "comparing"; });

  const fs::path out = a.out;
  std::string trouble = eval::trouble(compared.rows);
  std::vector<Write> writes;
  if (plan.distills && !train::is_run_there(out / "gates")) {
    if (trouble.empty()) {
      trouble =
          message(out.string(),
                  " was deleted or moved while methods were compared: gates and "
                  "results are there anew, the checkpoints and metrics of the gates are lost");
    }
    writes.push_back({"the gates' folder", [&] { used->save(out / "gates", model); }});
  }
  writes.push_back({"what follows the table", [&] {
                      for (const std::string& line : eval::remarks(compared.rows)) {
                        show_line(stdout, line);
                      }
                      show(stdout, "\n");
                    }});
  writes.push_back({"run.json", [&] {
                      if (compared.rows.empty()) return;  // an earlier one stays
                      nlohmann::json json = record_of("run", argc, argv,
                                                      eval::to_json(compared.rows), model.device());
                      json["model"] = a.model.model;
                      json["text"] = a.text;
                      json["settings"] = args.settings();
                      json["complete"] = compared.complete();
                      write_json(out / "run.json", json);
                      show_line(stdout, "results  " + (out / "run.json").string());
                    }});
  if (compared.complete() && used != nullptr) {
    writes.push_back(
        {"heads.png", [&] {
           picture_of(a, plan, model, *used, split.held_out).write_png(out / "heads.png");
           show_line(stdout, "picture  " + (out / "heads.png").string());
         }});
    writes.push_back({"attention.json", [&] {
                        std::vector<int32_t> ids = split.held_out.ids[0];
                        ids.resize(std::min<size_t>(ids.size(), kViewedTokens));
                        nlohmann::json json = attention_record(argc, argv, tokenizer, model, *used,
                                                               ids, a.select.selections(), a.seed);
                        json["model"] = a.model.model;
                        json["text"] = a.text;
                        write_json(out / "attention.json", json);
                      }});
  }
  writes.push_back(
      {"report.html",
       [&] { show_page(report::write_page({out}, out / "report.html"), out / "report.html"); }});
  if (compared.complete() && used != nullptr) {
    writes.push_back({"prompt.txt", [&] {
                        const std::string prompt = out / "prompt.txt";
                        write_file_atomic(prompt, tokenizer.decode(split.held_out.ids[0], true));
                        if (plan.distills)
                          show_line(stdout, "gates    " + (out / "gates").string());
                        show_line(stdout, "next     " + next_command(a, argv[0], prompt));
                      }});
  }
  conclude(writes, compared.failed, compared.signal, trouble);
  return 0;
}

}  // namespace seer::cli
