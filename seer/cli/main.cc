// The program: a table of verbs.

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/cli/allowed.h"
#include "seer/cli/report_error.h"
#include "seer/cli/verbs.h"

namespace {

using seer::cli::did_you_mean;
using seer::cli::typed;

struct Verb {
  const char* name;  // one word, or two: a group and a verb of it
  int (*run)(int argc, char** argv, int first);
  const char* about;
};

constexpr Verb kVerbs[] = {
    {"run", seer::cli::run,
     "distil gates for a model on a text, compare dense and sparse attention"},
    {"distill", seer::cli::distill, "train the gates of a model"},
    {"eval ppl", seer::cli::eval_ppl, "perplexity, dense beside sparse"},
    {"eval recall", seer::cli::eval_recall,
     "share of attention in the chosen blocks, by layer and head"},
    {"generate", seer::cli::generate, "continue a prompt: sparse prefill, dense decode"},
    {"pretrain", seer::cli::pretrain, "train a language model from scratch"},
    {"bench", seer::cli::bench, "time an operation beside its rivals"},
    {"kernels", seer::cli::kernels, "which operation has which implementation here"},
    {"tokenize", seer::cli::tokenize, "token ids of a text"},
    {"logits", seer::cli::logits, "logits of a text or of token ids"},
};

bool is_help(const std::string& word) {
  return word == "--help" || word == "-h" || word == "help";
}

// Of all verbs, or of those of a group.
void print_help(const std::string& group = "") {
  std::printf("seer%s: %s\n\nUsage: seer %s [--settings]\n\n",
              (group.empty() ? "" : " " + group).c_str(),
              group.empty() ? "learned block-sparse attention for long text"
                            : "dense beside sparse attention",
              group.empty() ? "VERB" : (group + " VERB").c_str());
  for (const Verb& verb : kVerbs) {
    if (group.empty() || std::string(verb.name).starts_with(group + " ")) {
      std::printf("  %-11s %s\n", verb.name, verb.about);
    }
  }
  std::printf("\n`seer %s --help` lists a verb's settings with units and defaults.%s\n",
              group.empty() ? "VERB" : (group + " VERB").c_str(),
              group.empty() ? " --version prints the version." : "");
}

std::vector<std::string> first_words() {
  std::vector<std::string> words{"help", "--help", "--version"};
  for (const Verb& verb : kVerbs) {
    const std::string name = verb.name;
    const std::string word = name.substr(0, name.find(' '));
    if (words.back() != word) words.push_back(word);
  }
  return words;
}

// The words behind the name of a group.
std::vector<std::string> verbs_of(const std::string& group) {
  std::vector<std::string> words;
  for (const Verb& verb : kVerbs) {
    const std::string name = verb.name;
    if (name.starts_with(group + " ")) words.push_back(name.substr(group.size() + 1));
  }
  return words;
}

int dispatch(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "", next = argc > 2 ? argv[2] : "";
  if (word.empty()) {
    print_help();
    return 2;
  }
  if (is_help(word)) {
    if (next.empty()) {
      print_help();
      return 0;
    }
    // `seer help VERB` is `seer VERB --help`.
    std::vector<std::string> words{argv[0]};
    words.insert(words.end(), argv + 2, argv + argc);
    words.emplace_back("--help");
    std::vector<char*> pointers;
    for (std::string& each : words) pointers.push_back(each.data());
    if (is_help(next)) pointers.resize(2);
    return dispatch(static_cast<int>(pointers.size()), pointers.data());
  }
  if (word == "--version") {
    std::puts("seer " SEER_VERSION);
    return 0;
  }
  for (const Verb& verb : kVerbs) {
    if (word == verb.name) return verb.run(argc, argv, 2);
    if (word + " " + next == verb.name) return verb.run(argc, argv, 3);
  }
  if (const auto verbs = verbs_of(word); !verbs.empty()) {
    if (next.empty() || is_help(next)) {
      print_help(word);
      return next.empty() ? 2 : 0;
    }
    std::vector<std::string> commands;
    for (const std::string& verb : verbs) commands.push_back("`seer " + word + " " + verb + "`");
    throw seer::UsageError(word + ": want " + seer::cli::listed(commands) + ", got " + typed(next) +
                           did_you_mean(next, verbs));
  }
  throw seer::UsageError("unknown verb " + typed(word) + did_you_mean(word, first_words()) +
                         "; `seer --help` lists them");
}

}  // namespace

int main(int argc, char** argv) {
  seer::cli::open_standard_streams();
  std::signal(SIGPIPE, SIG_DFL);  // `seer ... | head` ends quietly
  seer::cli::report_errors_of_threads();
  try {
    const int status = dispatch(argc, argv);
    // Results on standard output that did not arrive are a failure, too.
    seer::cli::check_standard_output();
    return status;
  } catch (...) {
    return seer::cli::report_error();
  }
}
