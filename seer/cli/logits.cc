// seer logits: the model's output for a text or for token ids, as a safetensors file.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/output.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/cli/methods.h"
#include "seer/cli/verbs.h"
#include "seer/io/model_config.h"
#include "seer/io/safetensors.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/models/loader.h"

namespace seer::cli {
namespace {

std::vector<int32_t> ids_of_text(const ModelArgs& model, const std::string& text,
                                 int64_t vocab_size) {
  const io::Tokenizer tokenizer = model.tokenizer();
  auto ids = tokenizer.encode(text, true);
  SEER_CHECK(!ids.empty(), "no tokens: the text is empty");
  io::check_token_ids(ids, vocab_size, "the text", &tokenizer);
  return ids;
}

std::vector<int32_t> read_ids(const std::string& path, int64_t vocab_size) {
  const nlohmann::json json = read_json(path);
  const JsonNode list(json, path);
  std::vector<int32_t> ids;
  for (size_t i = 0; i < list.array_size(); ++i) {
    ids.push_back(static_cast<int32_t>(list.at(i).integer(0, INT32_MAX)));
  }
  if (ids.empty()) list.expected("a list of token ids");
  io::check_token_ids(ids, vocab_size, path, nullptr);
  return ids;
}

}  // namespace

int logits(int argc, char** argv, int first) {
  ModelArgs model_args;
  SelectArgs select;
  std::string text, ids_file, gates_of, method = "dense", out = "logits.safetensors";
  Args args("logits", "Logits [tokens, vocabulary] (f32) of a text or of token ids.");
  model_args.add(args);
  args.add("method", method, one_of({"dense", "seer"}), "attention");
  args.add("gates", gates_of, kWhichGates);
  model_args.add_foreign_gates(args);
  select.add(args, {0.9});
  args.add("text", text, "the text; special tokens are added as the tokenizer says");
  args.add("ids", ids_file, "a file with token ids as a JSON list, instead of a text");
  args.output_file("out", out, "safetensors file with `logits`");
  args.when_read([&] {
    if (text.empty() == ids_file.empty()) throw UsageError("logits: want one of --text, --ids");
    if (select.selections().size() != 1) {
      throw UsageError("logits: want one --sparsity or --strength");
    }
    if (method == "dense") refuse(args, kOfSparse, "with --method dense");
    if (!ids_file.empty()) check_input(ids_file);
  });
  if (!args.parse(argc, argv, first)) return 0;

  const auto config = io::ModelConfig::read(model_args.model);
  const std::vector<int32_t> ids = ids_file.empty()
                                       ? ids_of_text(model_args, text, config.vocab_size)
                                       : read_ids(ids_file, config.vocab_size);
  const bool sparse = method == "seer";
  Needs needs{.trained = sparse, .gates = sparse, .sparse = sparse};
  const GatesFound found = find_gates(needs, gates_of, model_args.model, config);
  const int block = found.config.block_size;
  needs.lookup_rank = found.config.lookup_rank;
  settle_device(model_args, config, needs, block);
  const models::Decoder model = model_args.load();
  const at::NoGradGuard no_grad;
  std::unique_ptr<models::Gates> gates;
  models::Attention attention = models::dense_attention;
  if (sparse) {
    gates = load_gates(found.folder, model_args, model);
    attention = [sparse_attention = std::make_shared<models::SparseAttention>(
                     model, gates.get(),
                     models::SparseSettings{.method = method,
                                            .selection = select.selections()[0],
                                            .block = block,
                                            .form = {}})](const models::AttentionInput& in) {
      return (*sparse_attention)(in);
    };
  }
  const auto count = static_cast<int64_t>(ids.size());
  const at::Tensor input = at::tensor(at::ArrayRef<int32_t>(ids), at::kInt).to(at::kLong);
  const at::Tensor hidden = model.hidden(
      input.to(model.device()), {.q_lens = {count}, .k_lens = {count}, .prompt_len = 0}, attention);
  const at::Tensor result = model.logits(hidden).to(at::kFloat).cpu().contiguous();
  io::write_safetensors(out, {models::tensor_record("logits", result)});
  // Not among the bytes of a file that goes to standard output.
  print_line(message(out, ": logits of ", counted(static_cast<int64_t>(ids.size()), "token")),
             output_at(out).replaced.empty() ? stderr : stdout);
  return 0;
}

}  // namespace seer::cli
