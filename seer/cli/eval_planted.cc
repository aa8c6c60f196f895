// seer eval facts, copies, needle: questions planted into texts, which can be answered only from what stands
// earlier in the same text, under dense and sparse attention.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <utility>

#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/cli/eval_args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/eval/planted/facts.h"
#include "seer/eval/planted/picture.h"
#include "seer/eval/planted/planting.h"
#include "seer/eval/planted/score.h"
#include "seer/eval/planted/table.h"
#include "seer/eval/remarks.h"

namespace seer::cli {
namespace {

struct PlantedArgs : EvalArgs {
  std::string gates, png;
  std::vector<int64_t> lengths{8192};
  std::vector<std::string> wordings{"code"};
  eval::Distances distances;
  int64_t questions = 0;

  void add_all(Args& args, const char* picture) {
    methods = {"dense", "seer"};
    min_ratio = 1;
    further_windows = true;
    args.add("gates", gates, kWhichGates);
    model.add_foreign_gates(args);
    args.add("lengths", lengths, range(64, limits::kTokens), "tokens of each window, BOS included");
    args.output_file("png", png, message("also draw it: ", picture));
    add(args, method_names(), "what is compared; dense is always measured, and first",
        {0.5, 0.7, 0.9});
    args.when_read([this] {  // so that the others are compared with it as they come
      std::erase(methods, "dense");
      methods.insert(methods.begin(), "dense");
    });
  }
  void add_wordings(Args& args) {
    args.add("wordings", wordings, one_of(eval::wording_names()),
             "how facts are told and asked (" + eval::wording_help() + ")");
  }
  void add_distances(Args& args, const char* what, const char* automatic) {
    args.add("distances", distances, range(1, limits::kTokens),
             message("tokens from an answer back to ", what,
                     ": each lies between two neighbours of this list; default: an eighth, a "
                     "quarter, half and three quarters of the length"));
    args.add("questions", questions, or_automatic(range(1, limits::kSequences), 0),
             message("of a window; 0: ", automatic));
    args.when_read([this] {
      const bool ascend = std::adjacent_find(distances.begin(), distances.end(),
                                             std::greater_equal<>()) == distances.end();
      if (!distances.empty() && (distances.size() < 2 || !ascend)) {
        throw UsageError("--distances: want two or more, each larger than the one before");
      }
    });
  }
};

using Plant = std::function<eval::Planted(const eval::Windows& windows,
                                          const io::Tokenizer& tokenizer, int64_t vocab_size)>;
using Draw = report::Image(const std::vector<eval::Answered>& all, const std::string& title);

void announce(const std::string& verb, const Settled& one, const std::vector<eval::Answered>& all) {
  int64_t longest = 0, tokens = 0, passes = 0, questions = 0;
  for (const auto& [planted, rows] : all) {
    longest = std::max(longest, planted.length);
    const auto of_length = static_cast<int64_t>(planted.windows.size() * one.methods.size());
    passes += of_length;
    tokens += of_length * planted.length;
    for (const auto& window : planted.windows) {
      questions += static_cast<int64_t>(window.questions.size());
    }
  }
  warn_of_context(verb.c_str(), one.config, longest);
  std::fprintf(
      stderr, "seer %s: %s, %s over %s tokens; %s\n", verb.c_str(),
      counted(questions, "question").c_str(), counted(passes, "pass", "passes").c_str(),
      count_text(static_cast<double>(tokens)).c_str(),
      memory_text(one.args, one.config, longest, one.needs.sparse ? one.block : 0).c_str());
}

// Measures all lengths one after another into `all`; rows are shown on `out` as they come.
struct Ended {
  std::exception_ptr failed;
  int signal = 0;
};
Ended measure(const std::string& verb, const Settled& one, std::vector<eval::Answered>& all,
              std::FILE* out) {
  const auto loaded = load(one);  // what fails here leaves results that are there as they are
  Ended ended;
  const InterruptGuard interrupt;
  try {
    for (auto& [planted, rows] : all) {
      if (interrupt.signal() != 0) break;
      eval::PlantedLines lines(one.methods, planted);
      show(out, lines.head());
      Progress progress(message(verb, ", ", planted.length, " tokens"),
                        static_cast<int64_t>(one.methods.size() * planted.windows.size()));
      eval::PlantedWatch watch;
      watch.part = [&](double share) { progress.part(share, ""); };
      watch.pass = [&] { progress.advance(); };
      watch.stop = [&] { return interrupt.signal() != 0; };
      watch.row = [&](const eval::PlantedRow& row) {
        rows.push_back(row);
        progress.clear();
        show(out, lines.lines(row));
      };
      eval::answer(loaded->model, loaded->gates.get(), one.methods, planted, watch);
    }
  } catch (...) {
    ended.failed = std::current_exception();
  }
  ended.signal = interrupt.signal();
  return ended;
}

int measure_planted(const std::string& verb, const PlantedArgs& a, const Args& args, int argc,
                    char** argv, const Plant& plant, Draw* draw, const std::string& title) {
  const Settled one = settle(a, a.model.model, a.gates, a.methods);
  const io::Tokenizer tokenizer = a.model.tokenizer();
  std::vector<eval::Answered> all;
  for (const eval::Windows& windows :
       a.windows(verb.c_str(), tokenizer, a.lengths, one.config.vocab_size)) {
    all.push_back({plant(windows, tokenizer, one.config.vocab_size), {}});
  }
  announce(verb, one, all);
  std::FILE* const out = a.table_out();
  const Ended ended = measure(verb, one, all, out);
  const Write remarks{"what follows the table", [&] {
                        for (const std::string& line : eval::remarks(all)) show_line(out, line);
                      }};
  const Write picture{"the picture", [&] {
                        if (a.png.empty() || all[0].rows.empty()) return;
                        draw(all, title).write_png(a.png);
                      }};
  const Write results{"the results", [&] {
                        nlohmann::json json = record_of(verb, argc, argv, eval::to_json(all),
                                                        one.args.resolved_device());
                        json["settings"] = args.settings();
                        json["complete"] = !ended.failed && ended.signal == 0;
                        write_json(a.json, json);
                      }};
  conclude({remarks, results, picture}, ended.failed, ended.signal, eval::trouble(all));
  return 0;
}

}  // namespace

int eval_facts(int argc, char** argv, int first) {
  PlantedArgs a;
  std::vector<int64_t> facts{1};
  Args args("eval facts",
            "Facts planted into texts and asked for later on: tokens of the answers that are right "
            "(top-1, of digits for most wordings), whole answers (exact) and loss, by distance.");
  a.add_wordings(args);
  args.add("facts", facts, range(1, 32), "facts that a question asks for, one after another");
  a.add_distances(
      args, "where it is told",
      "one for 512 tokens of its length (128 more for each further fact), as far as there are "
      "names");
  a.add_all(args, "top-1 by distance, a line for each method");
  if (!args.parse(argc, argv, first)) return 0;
  return measure_planted(
      "eval facts", a, args, argc, argv,
      [&](const eval::Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size) {
        return eval::plant_facts(windows, tokenizer, vocab_size,
                                 {a.wordings, facts, a.distances, a.questions, a.seed});
      },
      eval::distance_picture, "Planted facts: share of the answers' tokens that are right");
}

int eval_copies(int argc, char** argv, int first) {
  PlantedArgs a;
  std::vector<int64_t> passages{192};
  Args args("eval copies",
            "Passages of texts pasted again later on: next tokens in the copies that are right "
            "(top-1), whole copies (exact) and loss, by distance.");
  args.add("passages", passages, range(2, limits::kTokens), "tokens of the passages");
  a.add_distances(args, "where it was copied from",
                  "one for six times the longest passage, 512 tokens at least");
  a.add_all(args, "top-1 by distance, a line for each method");
  if (!args.parse(argc, argv, first)) return 0;
  return measure_planted(
      "eval copies", a, args, argc, argv,
      [&](const eval::Windows& windows, const io::Tokenizer&, int64_t) {
        return eval::plant_copies(windows, {passages, a.distances, a.questions, a.seed});
      },
      eval::distance_picture, "Pasted passages: share of next tokens that are right");
}

int eval_needle(int argc, char** argv, int first) {
  PlantedArgs a;
  a.lengths = {1024, 2048, 4096, 8192};
  std::vector<double> depths{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  Args args(
      "eval needle",
      "A fact planted at a depth of a text and asked for at its end (needle in a haystack): "
      "tokens of the answers that are right (top-1), whole answers (exact) and loss, by depth "
      "and length.");
  a.add_wordings(args);
  args.add("depths", depths, range(0, 100),
           "where facts are told, per cent of the text before the questions");
  a.add_all(args, "a heat map of depths and lengths for each method");
  if (!args.parse(argc, argv, first)) return 0;
  return measure_planted(
      "eval needle", a, args, argc, argv,
      [&](const eval::Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size) {
        return eval::plant_needles(windows, tokenizer, vocab_size, {a.wordings, depths, a.seed});
      },
      eval::needle_picture, "Needle in a haystack: share of the answers' tokens that are right");
}

}  // namespace seer::cli
