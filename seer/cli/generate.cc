// seer generate: a prompt continued, with sparse prefill and dense decoding.

#include "seer/models/generate.h"

#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/base/utf8.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"

namespace seer::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct GenerateArgs {
  ModelArgs model;
  SelectArgs select;
  models::GenerateSettings settings;
  std::string gates, prompt, file, system, method = "auto";
  bool raw = false;
};

std::string prompt_text(const GenerateArgs& a) {
  std::string text = a.prompt;
  if (a.file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else if (!a.file.empty()) {
    text = io::read_text(a.file);
  }
  const std::string where = a.file.empty() ? "the prompt" : a.file;
  SEER_CHECK(!text.empty(), where, " is empty");
  const size_t bad = find_invalid_utf8(text);
  SEER_CHECK(bad == std::string::npos, where, " is not UTF-8 (byte ", bad, ")");
  return text;
}

std::vector<int32_t> prompt_ids(const GenerateArgs& a, const io::Tokenizer& tokenizer,
                                const std::string& text) {
  if (a.raw || !tokenizer.has_chat_template()) {
    if (!a.system.empty()) throw UsageError("--system: this model has no chat template (or --raw)");
    return tokenizer.encode(text, true);
  }
  std::vector<io::Tokenizer::Message> messages;
  if (!a.system.empty()) messages.push_back({"system", a.system});
  messages.push_back({"user", text});
  return tokenizer.encode(tokenizer.apply_chat_template(messages, true), false);
}

// Streams the text to standard output, then says on standard error what it cost.
void write_text(const models::Decoder& model, const io::Tokenizer& tokenizer,
                const std::vector<int32_t>& prompt, const models::Attention& attention,
                const models::GenerateSettings& settings) {
  io::StreamDecoder stream(tokenizer, true);
  const auto put = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (std::fflush(stdout) != 0) fail("cannot write to standard output: is the disk full?");
  };
  const auto start = Clock::now();
  auto first_token = start;
  int64_t count = 0;
  models::generate(model, prompt, attention, settings, [&](int32_t id) {
    if (count++ == 0) first_token = Clock::now();
    put(stream.push(id));
  });
  put(stream.finish() + "\n");
  const std::chrono::duration<double> prefill = first_token - start,
                                      decode = Clock::now() - first_token;
  std::fprintf(stderr, "seer generate: %zu tokens read in %.2f s, %lld written, %.1f tokens/s\n",
               prompt.size(), prefill.count(), static_cast<long long>(count),
               count > 1 ? static_cast<double>(count - 1) / decode.count() : 0.0);
}

}  // namespace

int generate(int argc, char** argv, int first) {
  GenerateArgs a;
  Args args("generate", "Continues a prompt: sparse prefill, dense decode with a KV cache.");
  a.model.add(args);
  args.add("gates", a.gates, "folder of the gates; default: `gates` in the model's folder");
  a.model.add_foreign_gates(args);
  args.add("method", a.method, one_of({"seer", "dense", "auto"}),
           "auto: seer where the model has gates and the prompt a block");
  a.select.add(args, {0.9});
  args.group("Text");
  args.add("prompt", a.prompt, "the prompt");
  args.add("prompt-file", a.file, "a file with the prompt; -: standard input");
  args.add("system", a.system, "system message for the chat template");
  args.flag("raw", a.raw, "no chat template, though the model has one");
  args.add("max-new-tokens", a.settings.max_new_tokens, range(0, limits::kTokens),
           "tokens to write, at most");
  args.add("chunk", a.settings.chunk, range(0, limits::kTokens),
           "tokens of the prompt read at a time, a multiple of the block; 0: all");
  args.group("Sampling");
  args.add("temperature", a.settings.temperature, range(0, 100), "0: always the most likely token");
  args.add("top-p", a.settings.top_p, above(0, 1),
           "sample from the most likely tokens of this joint probability");
  args.add("top-k", a.settings.top_k, range(0, limits::kTokens),
           "sample from this many most likely tokens; 0: all");
  args.add("seed", a.settings.seed, at_least(0), "the same seed gives the same text");
  args.when_read([&] {
    if (a.prompt.empty() == a.file.empty()) {
      throw UsageError("generate: want one of --prompt, --prompt-file");
    }
    if (a.select.selections().size() != 1) {
      throw UsageError("generate: want one --sparsity or --strength");
    }
    if (!a.file.empty() && a.file != "-") check_input(a.file);
  });
  if (!args.parse(argc, argv, first)) return 0;
  const auto selections = a.select.selections();

  const std::string text = prompt_text(a);
  const models::Decoder model = a.model.load();
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const std::vector<int32_t> prompt = prompt_ids(a, tokenizer, text);
  io::check_token_ids(prompt, model.config().vocab_size, a.file.empty() ? "the prompt" : a.file,
                      &tokenizer);
  const auto gates =
      a.method == "dense" ? nullptr : load_gates(a.gates, a.model, model, a.method == "seer");
  const at::NoGradGuard no_grad;
  const auto dense = [&](const char* why) {
    std::fprintf(stderr, "seer generate: dense attention%s\n", why);
    write_text(model, tokenizer, prompt, models::dense_attention, a.settings);
    return 0;
  };
  if (!gates) return dense("");
  const int block = gates->config().block_size;
  if (a.method == "auto" && static_cast<int>(prompt.size()) < block) {
    return dense(", as the prompt is less than a block");
  }
  SEER_CHECK(static_cast<int>(prompt.size()) >= block, "the prompt has ", prompt.size(),
             " tokens, less than a block of ", block,
             ": there is nothing to leave out; add --method dense");
  models::SparseSettings sparse{.scorer = models::Scorer::gate,
                                .selection = selections[0],
                                .block = block,
                                .seed = a.settings.seed};
  models::SparseAttention attention(model, gates.get(), sparse);
  write_text(
      model, tokenizer, prompt,
      [&](const models::AttentionInput& input) { return attention(input); }, a.settings);
  std::fprintf(stderr, "seer generate: %s, density %.3f\n",
               eval::to_text(eval::setting_of(selections[0])).c_str(),
               attention.statistics().density());
  return 0;
}

}  // namespace seer::cli
