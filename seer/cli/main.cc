// The program: a table of verbs, and errors turned into one line and an exit status.

#include <c10/util/Exception.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "seer/base/error.h"
#include "seer/base/first_line.h"
#include "seer/cli/verbs.h"

namespace {

struct Verb {
  const char* name;
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

void print_help() {
  std::puts(
      "seer: learned block-sparse attention for long text\n\nUsage: seer VERB [--settings]\n");
  for (const Verb& verb : kVerbs) std::printf("  %-11s %s\n", verb.name, verb.about);
  std::puts(
      "\n`seer VERB --help` lists a verb's settings with units and defaults. --version prints the "
      "version.");
}

int dispatch(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty() || word == "--help" || word == "-h" || word == "help") {
    print_help();
    return word.empty() ? 2 : 0;
  }
  if (word == "--version") {
    std::puts("seer " SEER_VERSION);
    return 0;
  }
  for (const Verb& verb : kVerbs) {
    const char* space = std::strchr(verb.name, ' ');
    if (space == nullptr && word == verb.name) return verb.run(argc, argv, 2);
    if (space != nullptr && argc > 2 && word + " " + argv[2] == verb.name) {
      return verb.run(argc, argv, 3);
    }
  }
  if (word == "eval") {
    if (argc > 2 && std::strcmp(argv[2], "--help") == 0) {
      print_help();
      return 0;
    }
    throw seer::UsageError("eval: want `seer eval ppl` or `seer eval recall`" +
                           (argc > 2 ? std::string(", got ") + argv[2] : std::string()));
  }
  throw seer::UsageError("unknown verb \"" + word + "\"; `seer --help` lists them");
}

int report(const std::string& text, int status) {
  const char* level = std::getenv("SEER_LOG");
  const bool debug = level != nullptr && std::strcmp(level, "debug") == 0;
  std::fprintf(stderr, "seer: error: %s\n", (debug ? text : seer::first_line(text)).c_str());
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // `seer ... | head` ends quietly
  try {
    const int status = dispatch(argc, argv);
    // Results on standard output that did not arrive are a failure, too.
    if (std::fflush(stdout) != 0) seer::fail("cannot write to standard output: is the disk full?");
    return status;
  } catch (const seer::UsageError& e) {
    return report(e.what(), 2);
  } catch (const c10::OutOfMemoryError& e) {
    return report(
        "the GPU's memory is full: choose fewer or shorter sequences at once, or --stream (" +
            seer::first_line(e.what_without_backtrace()) + ")",
        1);
  } catch (const c10::Error& e) {
    return report(e.what_without_backtrace(), 1);
  } catch (const std::exception& e) {
    return report(e.what(), 1);
  }
}
