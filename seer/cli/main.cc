// The program: a table of verbs.

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/allowed.h"
#include "seer/base/error.h"
#include "seer/cli/report_error.h"
#include "seer/cli/verbs.h"

namespace {

using seer::did_you_mean;
using seer::typed;
using Words = std::vector<std::string>;

struct Verb {
  const char* name;  // one word, or two: a group and a verb of it
  int (*run)(int argc, char** argv, int first);
  const char* about;
};

constexpr Verb kVerbs[] = {
    {"run", seer::cli::run,
     "distil gates for a model on a text, compare dense and sparse attention"},
    {"distill", seer::cli::distill, "train the gates of a model"},
    {"finetune", seer::cli::finetune,
     "train all weights at a longer context, with sparse attention"},
    {"eval ppl", seer::cli::eval_ppl, "perplexity, dense beside sparse"},
    {"eval recall", seer::cli::eval_recall,
     "share of attention in the chosen blocks, by layer and head"},
    {"eval facts", seer::cli::eval_facts, "facts planted into texts, by distance"},
    {"eval copies", seer::cli::eval_copies, "passages that are pasted again, by distance"},
    {"eval needle", seer::cli::eval_needle, "a fact in a long text, by depth and length"},
    {"eval heads", seer::cli::eval_heads, "what each head loses by its gate"},
    {"eval attention", seer::cli::eval_attention,
     "maps of real attention, of all heads, for the report's viewer"},
    {"report", seer::cli::report, "one HTML page of everything in folders of results"},
    {"generate", seer::cli::generate, "continue a prompt: sparse prefill, dense decode"},
    {"pretrain", seer::cli::pretrain, "train a language model from scratch"},
    {"bench", seer::cli::bench, "time an operation beside its rivals"},
    {"kernels", seer::cli::kernels, "which operation has which implementation here"},
    {"tokenize", seer::cli::tokenize, "token ids of a text"},
    {"logits", seer::cli::logits, "logits of a text or of token ids"},
};

// Thrown where CLI11 has found the verb: it reads its own `left` words (args.h).
struct Found {
  const Verb* verb;
  size_t left;
};

// Of all verbs, or of those of a group.
void print_help(const std::string& group = "") {
  std::printf("seer%s: %s\n\nUsage: seer %s [--settings]\n\n",
              (group.empty() ? "" : " " + group).c_str(),
              group.empty() ? "learned block-sparse attention for long text"
                            : "dense beside sparse attention",
              group.empty() ? "VERB" : (group + " VERB").c_str());
  for (const Verb& verb : kVerbs) {
    if (group.empty() || std::string(verb.name).starts_with(group + " ")) {
      std::printf("  %-14s %s\n", verb.name, verb.about);
    }
  }
  std::printf("\n`seer %s --help` lists a verb's settings with units and defaults.%s\n",
              group.empty() ? "VERB" : (group + " VERB").c_str(),
              group.empty() ? " --version prints the version." : "");
}

// Words that are neither a verb nor a flag of `app`, which is the program or a group.
void refuse_unknown(const CLI::App& app) {
  if (app.remaining().empty() || app.remaining()[0].empty()) return;
  const std::string word = app.remaining()[0], group = app.get_name();
  Words verbs, commands;
  for (const CLI::App* verb : app.get_subcommands({})) {
    verbs.push_back(verb->get_name());
    commands.push_back("`seer " + group + " " + verb->get_name() + "`");
  }
  if (app.get_parent() != nullptr) {
    throw seer::UsageError(group + ": want " + seer::listed(commands) + ", got " + typed(word) +
                           did_you_mean(word, verbs));
  }
  verbs.insert(verbs.begin(), {"help", "--help", "--version"});
  throw seer::UsageError("unknown verb " + typed(word) + did_you_mean(word, verbs) +
                         "; `seer --help` lists them");
}

// The tree of verbs and groups.
void add_verbs(CLI::App& program) {
  std::map<std::string, CLI::App*> groups;
  for (const Verb& verb : kVerbs) {
    const std::string name = verb.name;
    const size_t space = name.find(' ');
    CLI::App* app = &program;
    if (space != name.npos) {
      CLI::App*& group = groups[name.substr(0, space)];
      if (group == nullptr) group = program.add_subcommand(name.substr(0, space));
      app = group;
    }
    app->add_subcommand(name.substr(space + 1))->preparse_callback([&verb](size_t left) {
      throw Found{&verb, left};
    });
  }
}

int dispatch(int argc, char** argv) {
  Words words(argv + 1, argv + argc);
  const auto is_help = [&](size_t i) {
    return i < words.size() && (words[i] == "help" || words[i] == "--help" || words[i] == "-h");
  };
  // `seer help VERB` is `seer VERB --help`.
  if (is_help(0)) words.emplace_back("--help");
  while (is_help(0) && words.size() > 1) words.erase(words.begin());
  if (!words.empty() && words[0] == "--version") {
    std::puts("seer " SEER_VERSION);
    return 0;
  }
  CLI::App program("", "seer");
  program.allow_extras();
  program.require_subcommand(0, 1);
  add_verbs(program);
  std::optional<Found> found;
  bool asks_for_help = false;
  try {
    program.parse(Words(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const Found& verb) {
    found = verb;
  } catch (const CLI::CallForHelp&) {
    asks_for_help = true;
  }
  refuse_unknown(program);
  const auto parsed = program.get_subcommands();
  const CLI::App* const group = parsed.empty() ? nullptr : parsed[0];
  const bool is_group = group != nullptr && !group->get_subcommands({}).empty();
  if (is_group && is_help(1)) {  // whatever follows
    found.reset();
    asks_for_help = true;
  } else if (is_group) {
    refuse_unknown(*group);
  }
  if (!found) {
    print_help(is_group ? group->get_name() : "");
    return asks_for_help ? 0 : 2;
  }
  std::vector<char*> pointers{argv[0]};
  for (std::string& word : words) pointers.push_back(word.data());
  const int count = static_cast<int>(pointers.size());
  return found->verb->run(count, pointers.data(), count - static_cast<int>(found->left));
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
