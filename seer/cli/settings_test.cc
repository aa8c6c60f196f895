// Every setting of every verb with values that no setting, or not this one, takes; and what settings files
// may hold. Verbs are called as main() calls them, with a model that is not there: what is said about
// a setting comes before.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/cli/verbs.h"

namespace seer::cli {
namespace {

using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

constexpr const char* kNowhere = "no_folder_of_a_model";

struct Verb {
  const char* name;
  int (*run)(int argc, char** argv, int first);
  Words needs;  // to come as far as the model
};

std::string some_file() {
  const auto path = std::filesystem::path(testing::TempDir()) / "settings_test.txt";
  write_file_atomic(path, "text");
  return path;
}

std::vector<Verb> all_verbs() {
  const std::string file = some_file(), out = testing::TempDir() + "/settings_test_out";
  const Words model{"--model", kNowhere};
  const auto with = [&](Words words) {
    words.insert(words.end(), model.begin(), model.end());
    return words;
  };
  return {{"run", run, model},
          {"generate", generate, with({"--prompt", "x"})},
          {"tokenize", tokenize, with({"--text", "x"})},
          {"logits", logits, with({"--text", "x"})},
          {"kernels", kernels, {}},
          {"bench", bench, with({"prefill", "--out="})},
          {"distill", distill, with({"--data", file, "--out", out})},
          {"eval ppl", eval_ppl, with({"--data", file})},
          {"eval recall", eval_recall, with({"--data", file})},
          {"eval attention", eval_attention, with({"--data", file, "--html", out + ".html"})},
          {"pretrain", pretrain, {"--data", file, "--out", out, "--tokenizer", kNowhere}}};
}

const Verb& verb(const std::string& name) {
  static const std::vector<Verb> verbs = all_verbs();
  for (const Verb& one : verbs) {
    if (name == one.name) return one;
  }
  fail("no verb ", name);
}

// The message of a UsageError; "no error" where there is none. Any other exception fails the test.
std::string message_of(const Verb& verb, Words words) {
  words.insert(words.begin(), "seer");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  try {
    verb.run(static_cast<int>(pointers.size()), pointers.data(), 1);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "no error";
}

std::string message_with(const std::string& name, const Words& more) {
  Words words = verb(name).needs;
  words.insert(words.end(), more.begin(), more.end());
  return message_of(verb(name), words);
}

struct Listed {
  std::string name, kind;
};

// What takes a value, as --help lists it.
std::vector<Listed> settings_of(const Verb& verb) {
  testing::internal::CaptureStdout();
  message_of(verb, {"--help"});
  const std::string help = testing::internal::GetCapturedStdout();
  const std::regex line("\n  --([a-z-]+) (INT|NUMBER|TEXT)");
  std::vector<Listed> found;
  for (std::sregex_iterator at(help.begin(), help.end(), line), end; at != end; ++at) {
    found.push_back({(*at)[1], (*at)[2]});
  }
  return found;
}

// Paths and texts, which any word may be.
const std::set<std::string> kTexts{"model",  "tokenizer", "model-config", "text",  "prompt",
                                   "system", "file",      "prompt-file",  "gates", "data",
                                   "valid",  "cache",     "png",          "out",   "ids",
                                   "tools",  "joint",     "html"};
const std::set<std::string> kZero{
    "threads",         "seed",           "clip",           "valid-every",
    "synthetic",       "skip",           "warmup",         "weight-decay",
    "sparsity",        "strength",       "sink-blocks",    "local-blocks",
    "last-dense-rows", "max-new-tokens", "chunk",          "temperature",
    "top-k",           "gate-dim",       "constant-share", "micro-batch-tokens",
    "final-share",     "densities",      "seconds",        "lookup-heads",
    "lookup-cost",     "lookup-steps"};
const std::set<std::string> kShares{"skip",           "stage-ends",  "top-p",
                                    "constant-share", "final-share", "synthetic",
                                    "densities",      "sparsity",    "lookup-heads"};

bool takes(const std::string& verb, const Listed& setting, const std::string& value) {
  if (value == "64.7") return setting.kind == "NUMBER" && kShares.count(setting.name) == 0;
  // 0: as the method has it, all of them; other verbs make gates of that block.
  const bool is_zero_of_eval =
      (setting.name == "block" || setting.name == "documents") && verb.rfind("eval", 0) == 0;
  return (value == "0" && (kZero.count(setting.name) == 1 || is_zero_of_eval)) ||
         (value == "-1" &&
          (setting.name == "skip" || setting.name == "warmup" || setting.name == "lookup-heads"));
}

TEST(Settings, HostileValuesAreRefusedBeforeAnythingIsLoaded) {
  int cases = 0;
  for (const Verb& verb : all_verbs()) {
    const auto settings = settings_of(verb);
    ASSERT_GE(settings.size(), 3u) << verb.name;
    for (const Listed& setting : settings) {
      const bool is_text = setting.kind == "TEXT" && kTexts.count(setting.name) == 1;
      for (const char* value :
           {"", "nan", "-nan", "inf", "-inf", "-1", "0", "1e999", "64.7", "18446744073709551616",
            "99999999999999999999999", "x", "\x1b[31m", "0x10", " 1", "1 ", "1,,2", ",", "--"}) {
        if (is_text && (value[0] != '\0' || setting.name == "out")) continue;
        if (takes(verb.name, setting, value) && verb.name == std::string("kernels")) continue;
        const std::string words = "--" + setting.name + "=" + value;
        const std::string message = message_with(verb.name, {words});
        if (takes(verb.name, setting, value)) {
          EXPECT_THAT(message, HasSubstr(kNowhere)) << verb.name << " " << words;
        } else {
          EXPECT_THAT(message, HasSubstr(setting.name)) << verb.name << " " << words;
          EXPECT_THAT(message, Not(HasSubstr(kNowhere))) << verb.name << " " << words;
          EXPECT_THAT(message, Not(HasSubstr("\x1b"))) << verb.name << " " << words;
        }
        ++cases;
      }
    }
  }
  EXPECT_GT(cases, 1500);
  EXPECT_FALSE(std::filesystem::exists(testing::TempDir() + "/settings_test_out"));
}

TEST(Settings, MessagesSayWhatIsWanted) {
  const struct {
    const char* verb;
    Words words;
    const char* want;
  } cases[] = {
      {"generate",
       {"--sparsity", "90"},
       "--sparsity 90: want a number, 0 ... 1, 1 not included; did you mean 0.9?"},
      {"generate",
       {"--sink-blocks", "-1"},
       "--sink-blocks -1: want a whole number, 0 ... 16777216"},
      {"generate", {"--device", "gpu"}, "--device gpu: want auto, cpu, cuda or cuda:N"},
      {"generate", {"--also", "topp:0.9"}, "did you mean top_p?"},
      {"generate",
       {"--also", "top_p:nan"},
       "--also top_p:nan: want behind top_p: a number, 0 ... 1"},
      {"generate", {"--sparcity=0.5"}, "unknown setting --sparcity; did you mean --sparsity?"},
      {"generate", {"text"}, "the word text belongs to no setting"},
      {"distill", {"--steps", "64.7"}, "--steps 64.7: want a whole number, 1 ... 1000000000"},
      {"distill",
       {"--learning-rate", "nan"},
       "--learning-rate nan: want a number, above 0, at most 100"},
      {"distill", {"--skip", "-2"}, "--skip -2: want a number, 0 ... 1, 1 not included, or -1"},
      {"distill", {"--block", "0"}, "--block 0: want a whole number, 16 ... 128, a multiple of 16"},
      {"distill", {"--loss", "kk"}, "--loss kk: want kl or mse; did you mean kl?"},
      {"distill", {"--steps", "1", "--steps", "2"}, "--steps is given 2 times, want it once"},
      {"distill",
       {"--steps", "--restart"},
       "--steps needs a value, but the setting --restart stands behind it"},
      {"distill", {"--steps"}, "--steps needs a value behind it"},
      {"distill", {"--stream=perhaps"}, "--stream perhaps: want true or false"},
      {"distill",
       {"--leanring-rate", "1"},
       "unknown setting --leanring-rate; did you mean --learning-rate?"},
      {"eval ppl", {"--methods", "dense,stremaing"}, "did you mean streaming?"},
      {"eval ppl", {"--lengths", "4096,8192,4096"}, "--lengths 4096 twice: want each value once"},
      {"eval ppl", {"--methods", "seer,seer"}, "--methods seer twice: want each value once"},
      {"eval ppl", {"--sparsity", "0.9", "--sparsity", "0.90"}, "--sparsity 0.90 twice: want"},
      // Lists whose places mean something.
      {"pretrain",
       {"--lengths", "1024,2048,1024", "--stage-ends", "0.5,0.5"},
       "--stage-ends 0.5 twice"},
      {"kernels", {"--dtype", "bf-16"}, "--dtype bf-16: want f32, f16 or bf16; did you mean bf16?"},
      {"bench", {"--shapes", "qwen3-4"}, "did you mean qwen3-4b?"},
      {"bench", {"--heads", "3", "--kv-heads", "2"}, "--heads 3: want a multiple of --kv-heads 2"},
      {"bench", {"--head-dims", "64"}, "--head-dims means nothing for bench prefill"},
      {"distill", {"--lookup-rank", "48"}, "--lookup-rank 48: want 16, 32 or 64"},
  };
  for (const auto& one : cases) {
    EXPECT_THAT(message_with(one.verb, one.words), HasSubstr(one.want)) << one.verb;
  }
  EXPECT_THAT(message_with("generate", {"--also", "threshold"}), Not(HasSubstr("did you mean")));
  EXPECT_THAT(message_of(verb("tokenize"), {"--ids", "5,5", "--model", kNowhere}),
              HasSubstr(kNowhere));
  EXPECT_THAT(message_of(verb("bench"), {"pooled_attn", "--out=", "--head-dims", "64,300"}),
              HasSubstr("--head-dims 300: no kernel of"));
  EXPECT_THAT(message_of(verb("bench"), {"pooled_attn", "--out=", "--device", "cuda"}),
              HasSubstr("--device means nothing for bench pooled_attn, which times the CPU"));
  // Where the folder of a model is there.
  const auto with_model = [](const char* name, Words words) {
    words.insert(words.end(), {"--model", testing::TempDir()});
    return message_of(verb(name), words);
  };
  EXPECT_EQ(with_model("logits", {"--text", "x", "--sparsity", "0.5"}),
            "--sparsity means nothing with --method dense");
  EXPECT_EQ(with_model("logits", {"--text", "x", "--out", "-"}),
            "--out -: want the name of a file; /dev/stdout is standard output");
  EXPECT_EQ(with_model("generate", {"--prompt", "x", "--top-p", "0.5"}),
            "--top-p means nothing with --temperature 0, which takes the most likely token");
  EXPECT_THAT(with_model("eval recall",
                         {"--data", some_file(), "--gates", "a,b", "--methods", "streaming"}),
              HasSubstr("--gates names several folders, and no method"));
  const auto distill_with = [](Words words) {
    words.insert(words.end(),
                 {"--data", some_file(), "--out", testing::TempDir() + "/settings_test_out",
                  "--model", testing::TempDir()});
    return message_of(verb("distill"), words);
  };
  for (const char* name :
       {"--lookup-rank", "--lookup-windows", "--lookup-steps", "--lookup-learning-rate"}) {
    EXPECT_EQ(distill_with({name, "16", "--lookup-heads", "0"}),
              std::string(name) + " means nothing with --lookup-heads 0");
  }
  EXPECT_EQ(
      distill_with({"--lookup-cost", "0.2", "--lookup-heads", "0.1"}),
      "--lookup-heads and --lookup-cost both say how many heads choose blocks by tokens: give "
      "one");
  EXPECT_EQ(distill_with({"--foreign-gates"}), "--foreign-gates means nothing without --gates");
  EXPECT_EQ(distill_with({"--gates", testing::TempDir(), "--block", "64", "--lookup-heads", "0.1"}),
            "--block means nothing beside --gates");
  EXPECT_EQ(distill_with({"--valid-every", "5"}), "--valid-every means nothing without --valid");
  EXPECT_EQ(distill_with({"--weights", "1,1"}), "--weights: 2 for 1 text in --data");
  EXPECT_EQ(
      message_of(verb("eval ppl"), {"--data", some_file(), "--model", testing::TempDir(),
                                    "--sparsity", "0.5,0.9", "--also", "top_p:0.9,nz_ratio:0.1"}),
      "--also nz_ratio:0.1 is what another setting asks for: leave it out");
  // Where a tokenizer is there.
  const auto pretrain_with = [](Words words) {
    words.insert(words.end(),
                 {"--data", some_file(), "--out", testing::TempDir() + "/settings_test_out",
                  "--tokenizer", testing::TempDir()});
    return message_of(verb("pretrain"), words);
  };
  EXPECT_EQ(pretrain_with({"--model-config", some_file(), "--layers", "2"}),
            "--layers means nothing beside --model-config");
  EXPECT_EQ(pretrain_with({"--lengths", "1024", "--stage-ends", "0.5"}),
            "--stage-ends means nothing with one length in --lengths");
  EXPECT_EQ(pretrain_with({"--valid-tokens", "8192"}),
            "--valid-tokens means nothing without --valid");
  EXPECT_THAT(pretrain_with({"--kv-heads", "3"}),
              HasSubstr("--heads 4: want a multiple of --kv-heads 3"));
  EXPECT_THAT(pretrain_with({"--lengths", "1000"}),
              HasSubstr("--tokens-per-step 131072: want a multiple of every length, here 1000"));
  EXPECT_THAT(pretrain_with({"--lengths", "1024,2048,4096", "--stage-ends", "0.5,0.2"}),
              HasSubstr("--stage-ends: want each above the one before"));
}

// The message for a settings file with this text.
std::string of_file(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "settings_test.json";
  write_file_atomic(path, text);
  return message_with(name, {"--config=" + path.string()});
}

TEST(Settings, FilesAreReadAsStrictly) {
  const struct {
    const char *verb, *name;
    std::set<std::string> takes;
  } cases[] = {{"distill", "steps", {"64"}},
               {"distill", "learning-rate", {"64", "64.7"}},
               {"distill", "loss", {"\"kl\""}},
               {"distill", "stream", {"true"}},
               {"distill", "weights", {"[]", "[1]"}},
               {"pretrain", "lengths", {}},
               {"eval ppl", "methods", {"[\"dense\"]"}},
               {"eval ppl", "seed", {"64"}},
               {"generate", "system", {"\"kl\"", "\"\""}}};
  for (const auto& one : cases) {
    for (const char* value :
         {"64", "\"64\"", "64.7", "true", "null", "[]", "{}", "\"\"", "[1]", "[[1]]", "\"kl\"",
          "[\"dense\"]", "NaN", "-Infinity", "1e999", "18446744073709551616", "\"\\u0000\""}) {
      if (one.name == std::string("system") && std::string(value).find_first_of("6N1I") < 2)
        continue;
      const std::string message =
          of_file(one.verb, "{\"" + std::string(one.name) + "\": " + value + "}");
      if (one.takes.count(value) == 1) {
        EXPECT_THAT(message, HasSubstr(kNowhere)) << one.name << " " << value;
      } else {
        EXPECT_THAT(message, HasSubstr("settings_test.json: \"" + std::string(one.name) + "\""))
            << value;
      }
    }
  }
  EXPECT_THAT(of_file("distill", "{\"stpes\": 1}"),
              HasSubstr("unknown setting \"stpes\"; did you mean steps?"));
  EXPECT_THAT(of_file("eval ppl", "{\"lengths\": [8192, 8192]}"),
              HasSubstr("settings_test.json: \"lengths\" has 8192 twice: want each value once"));
  EXPECT_THAT(of_file("distill", "[]"), HasSubstr("want one JSON object"));
}

TEST(Settings, FilesAndFlags) {
  const auto path = std::filesystem::path(testing::TempDir()) / "settings_test.json";
  write_file_atomic(path, "{\"steps\": 0}");
  EXPECT_THAT(message_with("distill", {"--config", path.string()}), HasSubstr("\"steps\" is 0"));
  EXPECT_THAT(message_with("distill", {"--config=" + path.string(), "--config", path.string()}),
              HasSubstr("--config is given 2 times"));
  // The file gives what is required.
  write_file_atomic(path, "{\"data\": [\"" + some_file() + "\"], \"model\": \"" + kNowhere + "\"}");
  EXPECT_THAT(message_of(verb("eval ppl"), {"--config", path.string()}), HasSubstr(kNowhere));
  EXPECT_THAT(message_of(verb("eval ppl"), {}), HasSubstr("--data is required"));
  // Flags win.
  EXPECT_THAT(message_of(verb("eval ppl"), {"--config", path.string(), "--model", "elsewhere"}),
              HasSubstr("elsewhere"));
}

}  // namespace
}  // namespace seer::cli
