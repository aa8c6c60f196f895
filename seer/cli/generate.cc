// seer generate: a prompt continued, with sparse prefill and dense decoding.

#include "seer/models/generate.h"
#include "seer/base/shown.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <optional>

#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/utf8.h"
#include "seer/cli/measured.h"
#include "seer/cli/methods.h"
#include "seer/cli/verbs.h"
#include "seer/io/context.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/models/memory.h"
#include "seer/models/sparse_meter.h"

namespace seer::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Tokens from which on reading a prompt shows its progress.
constexpr int64_t kLongPrompt = 2048;

struct GenerateArgs {
  ModelArgs model;
  SelectArgs select;
  models::GenerateSettings settings;
  std::string gates, prompt, file, system, tools, method = "auto";
  bool raw = false;
};

// Of the prompt, for messages.
std::string place_of_prompt(const GenerateArgs& a) {
  if (a.file == "-") return "standard input";
  return a.file.empty() ? "the prompt" : a.file;
}

std::string prompt_text(const GenerateArgs& a) {
  std::string text = a.prompt;
  if (a.file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else if (!a.file.empty()) {
    text = io::read_text(a.file);
  }
  const std::string where = place_of_prompt(a);
  SEER_CHECK(!text.empty(), where, " is empty");
  const size_t bad = find_invalid_utf8(text);
  SEER_CHECK(bad == std::string::npos, where, " is not UTF-8 (byte ", bad, ")");
  return text;
}

std::string tools_text(const GenerateArgs& a) {
  if (a.tools.empty()) return "null";
  SEER_CHECK(read_json(a.tools).is_array(), a.tools, ": want a list of JSON schemas");
  return read_file(a.tools);
}

std::vector<int32_t> prompt_ids(const GenerateArgs& a, const io::Tokenizer& tokenizer) {
  const std::string text = prompt_text(a);
  if (a.raw || !tokenizer.chat_template()) {
    for (const auto& [flag, value] : {std::pair{"--system", a.system}, {"--tools", a.tools}}) {
      if (value.empty()) continue;
      throw UsageError(message(flag, ": this model has no chat template (or --raw)"));
    }
    return tokenizer.encode(text, true);
  }
  std::vector<io::Message> messages;
  if (!a.system.empty()) messages.push_back({"system", a.system});
  messages.push_back({"user", text});
  return tokenizer.encode(tokenizer.chat_template()->render(messages, tools_text(a), true), false);
}

// Refuses what the machine cannot hold, or what no model makes sense of, before the model is loaded.
void check_size(const GenerateArgs& a, const io::ModelConfig& config, int64_t prompt,
                int64_t block) {
  // Longer texts usually end by themselves: no reason to refuse the prompt.
  const int64_t tokens = prompt + std::min<int64_t>(a.settings.max_new_tokens, 4096);
  const int64_t context = io::context_length(config);
  const int64_t most = std::max(limits::kPromptTokens, limits::kPromptContexts * context);
  SEER_CHECK(prompt <= most, "the prompt has ", prompt, " tokens, more than ", most, " (",
             limits::kPromptContexts, " times the model's context of ", context, ", and at least ",
             limits::kPromptTokens, "): shorten it");
  warn_of_context("generate", config, tokens);

  const at::ScalarType dtype = a.model.resolved_dtype();
  const int64_t chunk = a.settings.chunk > 0 ? std::min(a.settings.chunk, prompt) : prompt;
  const double cache = models::cache_bytes(config, tokens, dtype);
  const double weights = a.model.stream ? 0 : models::weight_bytes(config, dtype);
  const double needed = cache + weights + models::pass_bytes(config, chunk, block, dtype);
  const double free = models::available_bytes(a.model.resolved_device());
  SEER_CHECK(free == 0 || needed <= free, "a prompt of ", counted(prompt, "token"), " and ",
             counted(a.settings.max_new_tokens, "new one"), " take about ",
             models::bytes_text(needed), " (", models::bytes_text(cache),
             " of them keys and values), and ", models::bytes_text(free),
             " are free: shorten the prompt",
             a.settings.chunk == 0 ? ", read it in parts (--chunk 4096)" : "",
             dtype == at::kFloat ? ", or try --dtype bf16" : "");
}

// Streams the text to standard output, then says on standard error what it cost.
void write_text(const models::Decoder& model, const io::Tokenizer& tokenizer,
                const std::vector<int32_t>& prompt, const models::Attention& attention,
                const models::GenerateSettings& settings) {
  io::StreamDecoder stream(tokenizer, true);
  const auto tokens = static_cast<int64_t>(prompt.size());
  const int64_t chunks = settings.chunk > 0 ? (tokens + settings.chunk - 1) / settings.chunk : 1;
  std::optional<Progress> reading;
  if (tokens >= kLongPrompt) {
    reading.emplace(message("reading ", tokens, " tokens, layer"),
                    chunks * model.config().num_layers);
  }
  const models::Attention watched = [&](const models::AttentionInput& input) {
    const at::Tensor o = attention(input);
    if (reading) reading->advance();
    return o;
  };
  const auto start = Clock::now();
  auto first_token = start;
  int64_t count = 0;
  models::generate(model, prompt, watched, settings, [&](int32_t id) {
    if (count++ == 0) first_token = Clock::now();
    reading.reset();
    show(stdout, stream.push(id));
  });
  show(stdout, stream.finish() + "\n");
  const std::chrono::duration<double> prefill = first_token - start,
                                      decode = Clock::now() - first_token;
  std::fprintf(stderr, "seer generate: %s read in %.2f s, %lld written, %.1f tokens/s\n",
               counted(tokens, "token").c_str(), prefill.count(), static_cast<long long>(count),
               count > 1 ? static_cast<double>(count - 1) / decode.count() : 0.0);
}

// Why the prompt is read densely though no one asked for that; empty: it is not.
std::string why_dense(const GenerateArgs& a, const GatesFound& found, int64_t prompt) {
  if (found.folder.empty()) {
    return no_gates(a.model.model) + ", or name a folder with --gates";
  }
  if (prompt < found.config.block_size) {
    return message("the prompt is less than a block of ", found.config.block_size, " tokens");
  }
  return "";
}

// The model's gates, and whether the prompt is read with them; if not, that is said.
struct Chosen {
  GatesFound gates;
  bool sparse = false;
};
Chosen choose_gates(const GenerateArgs& a, const io::ModelConfig& config, int64_t prompt) {
  if (a.method == "dense") {
    std::fputs("seer generate: dense attention\n", stderr);
    return {};
  }
  const bool required = a.method == "seer";
  const GatesFound found = find_gates({.trained = required, .gates = true, .sparse = true}, a.gates,
                                      a.model.model, config);
  const std::string why = why_dense(a, found, prompt);
  if (why.empty()) return {found, true};
  SEER_CHECK(!required, why, ": there is nothing to leave out; choose --method auto");
  print_line("seer generate: dense attention, as " + why);
  return {found, false};
}

}  // namespace

int generate(int argc, char** argv, int first) {
  GenerateArgs a;
  Args args("generate", "Continues a prompt: sparse prefill, dense decode with a KV cache.");
  a.model.add(args);
  args.add("gates", a.gates, kWhichGates);
  a.model.add_foreign_gates(args);
  args.add("method", a.method, one_of({"seer", "dense", "auto"}),
           "auto: seer where the model has gates and the prompt a block");
  a.select.add(args, {0.9});
  args.group("Text");
  args.add("prompt", a.prompt, "the prompt");
  args.add("prompt-file", a.file, "a file with the prompt; -: standard input");
  args.add("system", a.system, "system message for the chat template");
  args.add("tools", a.tools, "a JSON file with functions for the chat template, a list of schemas");
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
    if (a.method == "dense") refuse(args, kOfSparse, "with --method dense");
    if (a.settings.temperature == 0) {
      refuse(args, {"top-p", "top-k"}, "with --temperature 0, which takes the most likely token");
    }
    if (!a.file.empty() && a.file != "-") check_input(a.file);
    if (!a.tools.empty()) check_input(a.tools);
  });
  if (!args.parse(argc, argv, first)) return 0;
  const auto selection = a.select.selections()[0];

  const auto config = io::ModelConfig::read(a.model.model);
  const io::Tokenizer tokenizer = a.model.tokenizer();
  const std::vector<int32_t> prompt = prompt_ids(a, tokenizer);
  io::check_token_ids(prompt, config.vocab_size, place_of_prompt(a), &tokenizer);
  const auto tokens = static_cast<int64_t>(prompt.size());
  const auto [found, sparse] = choose_gates(a, config, tokens);
  const int block = found.config.block_size;
  settle_device(a.model, config,
                {.trained = sparse,
                 .gates = sparse,
                 .sparse = sparse,
                 .lookup_rank = sparse ? found.config.lookup_rank : 0},
                block);
  if (sparse && a.settings.chunk % block != 0) {
    throw UsageError(message("--chunk ", a.settings.chunk,
                             ": want a multiple of the gates' block of ", block, " tokens, or 0"));
  }
  check_size(a, config, tokens, sparse ? block : 0);

  const models::Decoder model = a.model.load();
  const at::NoGradGuard no_grad;
  // Gates of another model are refused whatever the prompt's length.
  const auto gates = found.folder.empty() ? nullptr : load_gates(found.folder, a.model, model);
  if (!sparse) {
    write_text(model, tokenizer, prompt, models::dense_attention, a.settings);
    return 0;
  }
  models::SparseAttention attention(model, gates.get(),
                                    {.method = "seer",
                                     .selection = selection,
                                     .block = block,
                                     .seed = a.settings.seed,
                                     .even = false,
                                     .form = {}});
  models::SparseMeter meter(model.device());
  {
    const auto watch = meter.watch();
    write_text(model, tokenizer, prompt, std::ref(attention), a.settings);
  }
  std::fprintf(stderr, "seer generate: %s, density %.3f\n",
               eval::to_text(eval::setting_of(selection)).c_str(), meter.statistics().density());
  return 0;
}

}  // namespace seer::cli
