#include "seer/models/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/models/fingerprint.h"
#include "seer/models/layer_stream.h"
#include "seer/models/rope.h"

namespace seer::models {
namespace {

// Without gradients the MLP runs this many tokens at a time: its inner activations would otherwise
// be the largest tensors of a long prompt.
constexpr int64_t kMlpTokens = 8192;

std::optional<at::Tensor> optional(const at::Tensor& t) {
  return t.defined() ? std::optional<at::Tensor>(t) : std::nullopt;
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight, optional(bias));
}

// [T, heads * D] -> [T, heads, D]
at::Tensor heads(const at::Tensor& x, int64_t head_dim) {
  return x.view({x.size(0), -1, head_dim});
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, weight.sizes(), weight, eps);
}

at::Tensor mlp(const at::Tensor& x, const LayerWeights& w) {
  const at::Tensor inner = at::silu(linear(x, w.gate, w.gate_bias)).mul(linear(x, w.up, w.up_bias));
  return linear(inner, w.down, w.down_bias);
}

at::Tensor mlp_in_pieces(const at::Tensor& x, const LayerWeights& w) {
  if (at::GradMode::is_enabled() || x.size(0) <= kMlpTokens) return mlp(x, w);
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : x.split(kMlpTokens, 0)) parts.push_back(mlp(part, w));
  return at::cat(parts, 0);
}

// Position of every query: the last q_len of its sequence's k_len tokens.
at::Tensor query_positions(const Sequences& sequences, const at::Device& device) {
  const auto options = at::TensorOptions(at::kLong).device(device);
  if (sequences.equal_lengths()) {  // the case of training: one launch, however many sequences
    return at::arange(sequences.q_lens[0], options)
        .repeat({static_cast<int64_t>(sequences.q_lens.size())});
  }
  std::vector<at::Tensor> parts;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t end = sequences.k_lens[b];
    parts.push_back(at::arange(end - sequences.q_lens[b], end, options));
  }
  return at::cat(parts, 0);
}

void check_sequences(const at::Tensor& ids, const Sequences& sequences,
                     const SequenceCache* cache) {
  SEER_CHECK(!sequences.q_lens.empty() && sequences.q_lens.size() == sequences.k_lens.size(),
             "a forward pass needs sequences, with a q_len and a k_len each; got ",
             sequences.q_lens.size(), " and ", sequences.k_lens.size());
  SEER_CHECK(ids.dim() == 1 && ids.size(0) == sequences.num_tokens(), "ids are ", ids.sizes(),
             ", expected one for each of the ", sequences.num_tokens(), " tokens");
  if (cache == nullptr) {
    SEER_CHECK(sequences.q_lens == sequences.k_lens, "without a KV cache q_lens equal k_lens");
    return;
  }
  SEER_CHECK(sequences.q_lens.size() == 1, "a KV cache holds one sequence, got ",
             sequences.q_lens.size());
  SEER_CHECK(sequences.k_lens[0] == cache->length() + sequences.q_lens[0], "k_len is ",
             sequences.k_lens[0], ", expected ", cache->length(), " cached tokens and ",
             sequences.q_lens[0], " given ones");
}

}  // namespace

Decoder::Decoder(io::ModelConfig config, ModelWeights weights)
    : config_(std::move(config)), weights_(std::make_unique<ModelWeights>(std::move(weights))) {
  SEER_CHECK(static_cast<int>(weights_->layers.size()) == config_.num_layers, "weights of ",
             weights_->layers.size(), " layers, expected ", config_.num_layers);
  SEER_CHECK(weights_->embedding.defined() && weights_->norm.defined(),
             "weights without an embedding or a last norm");
  if (config_.tied_embeddings) weights_->head = weights_->embedding;
  SEER_CHECK(weights_->head.defined(), "weights without an output head, and it is not tied");
}

Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

Decoder::Origin Decoder::origin() const {
  if (!origin_.fingerprint.empty()) return origin_;
  Fingerprint fingerprint;
  ModelWeights weights = *weights_;  // tensors are shared, not copied
  for (const auto& [name, weight] : named_weights(weights)) fingerprint.add(name, *weight);
  return {"", fingerprint.text()};
}

void Decoder::stream_layers() {
  stream_ = std::make_unique<LayerStream>(weights_->layers, device());
}

at::Tensor Decoder::hidden(const at::Tensor& ids, const Sequences& sequences,
                           const Attention& attention, SequenceCache* cache) const {
  check_sequences(ids, sequences, cache);
  Pass pass = begin(ids, sequences);
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    run_layer(layer, pass, attention, cache);
  }
  if (cache != nullptr) cache->advance(ids.size(0));
  return end(pass);
}

Decoder::Pass Decoder::begin(const at::Tensor& ids, const Sequences& sequences) const {
  const auto [cos, sin] = rope(query_positions(sequences, device()), sequences.longest());
  return {sequences, at::embedding(weights_->embedding, ids), cos.to(dtype()), sin.to(dtype())};
}

void Decoder::run_layer(int layer, Pass& pass, const Attention& attention,
                        SequenceCache* cache) const {
  const LayerWeights& w =
      stream_ ? stream_->layer(layer) : weights_->layers[static_cast<size_t>(layer)];
  const int64_t head_dim = config_.head_dim;
  const double eps = config_.rms_norm_eps;
  at::Tensor& x = pass.x;
  const at::Tensor y = norm(x, w.input_norm, eps);
  at::Tensor q = heads(linear(y, w.q, w.q_bias), head_dim);
  at::Tensor k = heads(linear(y, w.k, w.k_bias), head_dim);
  const at::Tensor v = heads(linear(y, w.v, w.v_bias), head_dim);
  if (config_.qk_norm) {
    q = norm(q, w.q_norm, eps);
    k = norm(k, w.k_norm, eps);
  }
  AttentionInput input{layer,
                       pass.sequences,
                       q,
                       k,
                       apply_rope(q, pass.cos, pass.sin),
                       apply_rope(k, pass.cos, pass.sin),
                       v,
                       1 / std::sqrt(static_cast<double>(head_dim)),
                       config_.sliding_window[static_cast<size_t>(layer)]};
  if (cache != nullptr) {
    std::tie(input.k, input.v) = cache->append(layer, input.k, v);
    input.cache = cache;
  }
  const at::Tensor o = attention(input).reshape({x.size(0), -1});
  x = x.add(linear(o, w.o, w.o_bias));
  x = x.add(mlp_in_pieces(norm(x, w.post_norm, eps), w));
}

at::Tensor Decoder::end(const Pass& pass) const {
  return norm(pass.x, weights_->norm, config_.rms_norm_eps);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  return at::linear(hidden, config_.tied_embeddings ? weights_->embedding : weights_->head);
}

std::pair<at::Tensor, at::Tensor> Decoder::rope(const at::Tensor& positions, int64_t length) const {
  return rope_tables(config_.rope, positions, length);
}

}  // namespace seer::models
