// seer logits: the model's output for a text or for token ids, as a safetensors file.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/io/safetensors.h"
#include "seer/models/loader.h"

namespace seer::cli {

int logits(int argc, char** argv, int first) {
  ModelArgs model_args;
  std::string text, ids_file, out = "logits.safetensors";
  Args args("logits",
            "Logits [tokens, vocabulary] (f32) of a text or of token ids, dense attention.");
  model_args.add(args);
  args.add("text", text, "the text; special tokens are added as the tokenizer says");
  args.add("ids", ids_file, "a file with token ids as a JSON list, instead of a text");
  args.add("out", out, "safetensors file with `logits`");
  if (!args.parse(argc, argv, first)) return 0;
  if (text.empty() == ids_file.empty()) throw UsageError("logits: want one of --text, --ids");

  const models::Decoder model = model_args.load();
  std::vector<int64_t> ids;
  if (!ids_file.empty()) {
    try {
      ids = nlohmann::json::parse(read_file(ids_file)).get<std::vector<int64_t>>();
    } catch (const nlohmann::json::exception&) {
      fail(ids_file, ": want a JSON list of token ids");
    }
  } else {
    for (const int32_t id : model_args.tokenizer().encode(text, true)) ids.push_back(id);
  }
  SEER_CHECK(!ids.empty(), "no tokens: the text is empty");
  for (const int64_t id : ids) {
    SEER_CHECK(id >= 0 && id < model.config().vocab_size, "token id ", id,
               " is not in the vocabulary of ", model.config().vocab_size);
  }
  const at::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(ids.size());
  const at::Tensor input = at::tensor(at::IntArrayRef(ids), at::kLong);
  const at::Tensor hidden = model.hidden(input.to(model.device()),
                                         {.q_lens = {count}, .k_lens = {count}, .prompt_len = 0},
                                         models::dense_attention);
  const at::Tensor result = model.logits(hidden).to(at::kFloat).cpu().contiguous();
  io::write_safetensors(out, {models::tensor_record("logits", result)});
  std::printf("%s: logits of %zu tokens\n", out.c_str(), ids.size());
  return 0;
}

}  // namespace seer::cli
