#include "seer/models/gates/head_needs.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/io/repeated_passages.h"
#include "seer/models/list_mask.h"

namespace seer::models {
namespace {

constexpr int64_t kNearBlocks =
    4;  // that a row sees last, besides the first block: any rule keeps them
constexpr int64_t kFewestBlocks = 16;
constexpr uint64_t kPhraseSeed = 0x6c6f6f6b757073;
// Phrases that come again: few of a block's tokens, as facts are. Heads that find these find longer passages, too (measured
// once, of 960 digits: SmolLM2-135M finds 81 % with the heads chosen by 2 to 5 tokens, 79 % with those by 32 to 256).
constexpr int64_t kTokensOfPhrase[] = {2, 5}, kTokensForPhrase = 32;

// Of each head the second moment of its vectors: x [T, heads, D] to [heads, D, D] f64.
at::Tensor moments_of(const at::Tensor& x) {
  std::vector<at::Tensor> moments;
  for (int64_t head = 0; head < x.size(1); ++head) {
    const at::Tensor vectors = x.select(1, head).to(at::kFloat);
    moments.push_back(vectors.t().matmul(vectors).to(at::kDouble));
  }
  return at::stack(moments);
}

// bool [R, N] of one whole sequence: blocks that are neither the first nor among the last that a row sees.
at::Tensor far_blocks(int64_t num_blocks, const at::Device& device) {
  const at::Tensor at = at::arange(num_blocks, at::TensorOptions(at::kLong).device(device));
  return at.gt(0).logical_and(at.le(at.unsqueeze(1).sub(kNearBlocks)));
}

// The square root of a positive semidefinite matrix, and its inverse where it has one.
std::pair<at::Tensor, at::Tensor> roots(const at::Tensor& moment) {
  const auto [values, vectors] = at::linalg_eigh(moment);
  const double smallest = 1e-12 * std::max(values.max().item<double>(), 1e-300);
  const at::Tensor root = values.clamp_min(smallest).sqrt();
  return {vectors.mul(root).matmul(vectors.t()), vectors.div(root).matmul(vectors.t())};
}

}  // namespace

HeadNeeds::HeadNeeds(const Decoder& model, const Gates& gates, double density)
    : model_(model), gates_(gates), density_(density) {
  const auto& config = model.config();
  lost_ = at::zeros({config.num_layers, config.num_heads}, at::kDouble);
  const auto zeros = [&](int64_t heads) {
    return at::zeros({heads, config.head_dim, config.head_dim},
                     at::TensorOptions(model.device()).dtype(at::kDouble));
  };
  for (int layer = 0; layer < config.num_layers; ++layer) {
    q_.push_back(zeros(config.num_heads));
    k_.push_back(zeros(config.num_kv_heads));
  }
}

int64_t HeadNeeds::fewest_tokens(int block) {
  return (kFewestBlocks - 1) * block + 1;
}

void HeadNeeds::check_length(int64_t tokens, int block) {
  SEER_CHECK(tokens >= fewest_tokens(block), "a text of ", tokens,
             " tokens is too short to find lookup heads: want ", fewest_tokens(block), " or more");
}

void HeadNeeds::add(const at::Tensor& ids, const Watch& watch) {
  const at::NoGradGuard no_grad;
  const int block = gates_.config().block_size;
  const int64_t length = ids.numel(), num_blocks = (length + block - 1) / block;
  check_length(length, block);
  const Sequences sequences{.q_lens = {length}, .k_lens = {length}};
  const auto ragged = torch_ops::make_ragged({length}, {length}, block, model_.device());
  const at::Tensor lost = at::full(lost_.sizes(), std::numeric_limits<double>::quiet_NaN(),
                                   at::TensorOptions(model_.device()).dtype(at::kDouble));
  model_.hidden(ids.to(model_.device()), sequences, [&](const AttentionInput& input) {
    const at::Tensor o =
        window_cuts(input) ? dense_attention(input) : measure(input, ragged, lost[input.layer]);
    if (watch) watch(input.layer + 1, lost.size(0));
    return o;
  });
  lost_.add_(lost.cpu());
  num_rows_ += num_blocks;
  num_tokens_ += length;
}

void HeadNeeds::add_repeated(const at::Tensor& ids, uint64_t seed, uint64_t index,
                             const Watch& watch) {
  const at::Tensor window = ids.to(at::kCPU, at::kInt, /*non_blocking=*/false, /*copy=*/true);
  Random random(mix64(seed ^ kPhraseSeed), index);
  io::FreePlaces places(window.numel());
  const io::Repeats repeats = {window.numel() / kTokensForPhrase, kTokensOfPhrase[0],
                               kTokensOfPhrase[1]};
  io::repeat_passages(places, random, repeats, window.mutable_data_ptr<int32_t>());
  add(window.to(at::kLong), watch);
}

at::Tensor HeadNeeds::measure(const AttentionInput& input, const torch_ops::Ragged& ragged,
                              at::Tensor lost) {
  const auto [o, lse, map] =
      torch_ops::pooled_attn(input.q, input.k, input.v, ragged, input.scale, /*causal=*/true,
                             /*group_max=*/false, /*normalise=*/false);
  const at::Tensor scores = gates_.scores(input, ragged);
  const torch_ops::Selection selection{.rule = "nz_ratio", .strength = {density_}};
  // What no query of a row sees has a weight of 0, as something seen may have, but is never chosen.
  const at::Tensor by_map =
      map.masked_fill(scores.isneginf(), -std::numeric_limits<double>::infinity());
  const torch_ops::BlockLists best = torch_ops::block_select(by_map, ragged, selection),
                              kept = torch_ops::block_select(scores, ragged, selection);
  const int64_t num_blocks = map.size(2);
  const at::Tensor far = far_blocks(num_blocks, map.device());
  for (int64_t head = 0; head < map.size(0); ++head) {
    const at::Tensor missed = mask_of(best, head, num_blocks)
                                  .logical_and_(mask_of(kept, head, num_blocks).logical_not_())
                                  .logical_and_(far);
    lost[head].copy_(map[head].mul(missed).sum(at::kDouble));
  }
  const auto layer = static_cast<size_t>(input.layer);
  q_[layer].add_(moments_of(input.q));
  k_[layer].add_(moments_of(input.k));
  return o;
}

void HeadNeeds::join(const std::function<void(const at::Tensor&)>& sum) {
  for (const auto* moments : {&q_, &k_}) {
    for (const at::Tensor& of_layer : *moments) sum(of_layer);
  }
  const at::Tensor counts = at::tensor({num_rows_, num_tokens_}, at::kDouble);
  const at::Tensor rest = at::cat({lost_.flatten(), counts}).to(model_.device());
  sum(rest);
  const at::Tensor all = rest.cpu();
  lost_ = all.narrow(0, 0, lost_.numel()).view(lost_.sizes()).clone();
  num_rows_ = all[lost_.numel()].item<int64_t>();
  num_tokens_ = all[lost_.numel() + 1].item<int64_t>();
}

at::Tensor HeadNeeds::lost() const {
  SEER_CHECK(num_rows_ > 0, "no text was given to find lookup heads in");
  return lost_.div(static_cast<double>(num_rows_));
}

bool HeadNeeds::has_any() const {
  return !lost_.isnan().all().item<bool>();
}

std::vector<std::vector<int>> HeadNeeds::neediest(int64_t count) const {
  const at::Tensor all = lost();
  const auto value = all.accessor<double, 2>();
  std::vector<std::pair<double, std::pair<int, int>>> heads;
  for (int layer = 0; layer < all.size(0); ++layer) {
    for (int head = 0; head < all.size(1); ++head) {
      if (value[layer][head] > 0) heads.push_back({-value[layer][head], {layer, head}});
    }
  }
  std::sort(heads.begin(), heads.end());
  heads.resize(std::min(heads.size(), static_cast<size_t>(std::max<int64_t>(count, 0))));
  std::vector<std::vector<int>> layers(static_cast<size_t>(all.size(0)));
  for (const auto& [need, at] : heads) layers[static_cast<size_t>(at.first)].push_back(at.second);
  for (auto& of_layer : layers) std::sort(of_layer.begin(), of_layer.end());
  return layers;
}

std::pair<at::Tensor, at::Tensor> HeadNeeds::best_projections(int layer, int head, int rank) const {
  const auto& config = model_.config();
  const at::Tensor &q = q_.at(static_cast<size_t>(layer)), &k = k_.at(static_cast<size_t>(layer));
  SEER_CHECK(!lost_[layer].isnan().all().item<bool>(), "layer ", layer,
             " chooses no blocks: its window hides keys");
  SEER_CHECK(rank > 0 && rank <= config.head_dim, "projections to ", rank, " features, want 1 to ",
             config.head_dim);
  const int kv_head = head / (config.num_heads / config.num_kv_heads);
  const auto tokens = static_cast<double>(num_tokens_);
  const auto [root_q, inverse_q] = roots(q[head].cpu().div(tokens));
  const auto [root_k, inverse_k] = roots(k[kv_head].cpu().div(tokens));
  const auto [u, values, vt] = at::linalg_svd(root_q.matmul(root_k), /*full_matrices=*/false);
  const at::Tensor share = values.narrow(0, 0, rank).sqrt();
  const auto project = [&](const at::Tensor& inverse, const at::Tensor& vectors) {
    return inverse.matmul(vectors.narrow(1, 0, rank).mul(share)).to(at::kFloat).contiguous();
  };
  return {project(inverse_q, u), project(inverse_k, vt.t())};
}

nlohmann::json to_json(const at::Tensor& lost, const Gates& gates) {
  nlohmann::json layers = nlohmann::json::array();
  const auto value = lost.accessor<double, 2>();
  for (int64_t layer = 0; layer < lost.size(0); ++layer) {
    nlohmann::json heads = nlohmann::json::array();
    for (int64_t head = 0; head < lost.size(1); ++head) {
      const double of_head = value[layer][head];
      heads.push_back(std::isnan(of_head) ? nlohmann::json(nullptr)
                                          : nlohmann::json(std::round(of_head * 1e6) / 1e6));
    }
    layers.push_back(heads);
  }
  return {{"lost", layers}, {"lookup_heads", gates.config().lookup_heads}};
}

}  // namespace seer::models
