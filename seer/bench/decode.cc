// A model that writes one token after another, beside the rate at which the device reads memory.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "seer/bench/decode.h"
#include "seer/models/attention.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/torch/stopwatch.h"

namespace seer::bench {
namespace {

void decode_behind(const models::Decoder& model, const std::string& name, int64_t length,
                   const Request& request, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const io::ModelConfig& config = model.config();
  const auto options = at::TensorOptions(model.device()).dtype(model.dtype());
  models::SequenceCache cache(config.num_layers, length + 4096);
  at::Tensor keys;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    keys = at::randn({length, config.num_kv_heads, config.head_dim}, options);
    cache.append(layer, keys, keys);
  }
  cache.advance(length);
  at::Tensor id = at::zeros({1}, options.dtype(at::kLong));
  torch_ops::Stopwatch attention_time(model.device());
  std::vector<double> attention_ms;
  const models::Attention attention = [&](const models::AttentionInput& input) {
    const auto span = attention_time.span();
    return models::dense_attention(input);
  };
  const auto step = [&] {
    attention_time.reset();
    const at::Tensor hidden = model.hidden(id, {{1}, {cache.length() + 1}, 0}, attention, &cache);
    // As sampling does: the token comes to the host.
    id = at::full({1}, model.logits(hidden).argmax().item().toLong(), options.dtype(at::kLong));
    attention_ms.push_back(1e3 * attention_time.seconds());
  };
  // Bytes that a token reads: all but the table of embeddings, where that is not the head.
  double weights = 0;
  models::ModelWeights of_model = model.weights();
  for (const auto& [weight_name, weight] : models::named_weights(of_model)) {
    if (weight->is_same(of_model.embedding) && !config.tied_embeddings) continue;
    weights += static_cast<double>(weight->nbytes());
  }
  const double bytes = weights + 2.0 * config.num_layers * static_cast<double>(keys.nbytes());
  const auto ms = time_in_rounds({[&] { read_memory(keys); }, step}, request, 1);
  nlohmann::json row = decode_row({{"model", name},
                                   {"implementation", "seer"},
                                   {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"},
                                   {"heads_q", config.num_heads},
                                   {"heads_kv", config.num_kv_heads},
                                   {"head_dim", config.head_dim},
                                   {"len_k", length}},
                                  ms[1], bytes, ms[0], static_cast<double>(keys.nbytes()));
  row["tokens_per_s"] = 1e3 / median(ms[1]);
  attention_ms.erase(attention_ms.begin());  // the round that warms up
  row["attention_ms"] = median(attention_ms);
  rows.push_back(std::move(row));
}

}  // namespace

void decode(const Request& request, nlohmann::json& rows) {
  for_each_model(request, /*needs_gates=*/false,
                 [&](const models::Decoder& model, const auto*, const std::string& name) {
                   for (const int64_t length : request.lengths) {
                     decode_behind(model, name, length, request, rows);
                   }
                 });
}

}  // namespace seer::bench
