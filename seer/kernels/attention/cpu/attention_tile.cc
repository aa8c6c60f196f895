#include "seer/kernels/attention/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>

namespace seer::kernels {
namespace {

// Blocks that share one softmax step and one pass over the output: small blocks are cheaper
// together.
constexpr int kStepKeys = 64;

constexpr int round_up(int n, int unit) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace

AttentionTile::AttentionTile(const TileEngine& engine, const PackedAttentionParams& p, int block_k)
    : engine_(engine),
      dtype_(p.dtype),
      has_output_(p.o.data != nullptr),
      head_dim_(p.head_dim),
      padded_(padded_head_dim(p.head_dim)),
      block_k_(block_k),
      step_blocks_(std::max(1, kStepKeys / block_k)),
      scale_log2_(p.scale * static_cast<float>(M_LOG2E)),
      q_(size_t(kTileLanes) * padded_ * engine.element_bytes),
      s_(size_t(kTileLanes) * block_k * step_blocks_ * sizeof(float)),
      acc_(has_output_ ? size_t(kTileLanes) * padded_ * sizeof(float) : 0) {}

void AttentionTile::begin(std::span<const TileQuery> queries) {
  num_queries_ = static_cast<int>(queries.size());
  lanes_ = round_up(num_queries_, 16);
  earliest_ = INT32_MAX;
  latest_ = -1;
  const void* rows[kTileLanes] = {};
  for (int i = 0; i < lanes_; ++i) {
    last_key_[i] = -1;
    if (i < num_queries_) {
      rows[i] = queries[i].q;
      o_[i] = queries[i].o;
      lse_[i] = queries[i].lse;
      last_key_[i] = queries[i].last_key;
      earliest_ = std::min(earliest_, last_key_[i]);
      latest_ = std::max(latest_, last_key_[i]);
    }
  }
  engine_.pack_queries(dtype_, rows, lanes_, head_dim_, q_.as());
  std::fill_n(m_, lanes_, -INFINITY);
  std::fill_n(l_, lanes_, 0.f);
  is_empty_ = true;
}

void AttentionTile::add(std::span<const KvBlock> blocks, float* row_max) {
  while (!blocks.empty()) {
    const size_t n = std::min<size_t>(blocks.size(), step_blocks_);
    add_step(blocks.first(n), row_max);
    blocks = blocks.subspan(n);
    if (row_max) row_max += n * lanes_;
  }
}

void AttentionTile::score(const KvBlock& block, float* s, float* top) {
  engine_.scores(q_.as(), block.k, lanes_, block_k_, padded_, s, top);
  // Blocks that every query sees whole take no mask work.
  if (block.first_key + block_k_ - 1 <= earliest_) return;
  alignas(64) int32_t limit[kTileLanes];
  for (int lane = 0; lane < lanes_; ++lane) limit[lane] = last_key_[lane] - block.first_key;
  engine_.mask(limit, lanes_, block_k_, s, top);
}

void AttentionTile::add_maxima(std::span<const KvBlock> blocks, float* row_max) {
  for (const KvBlock& block : blocks) {
    score(block, s_.as<float>(), row_max);
    row_max += lanes_;
  }
}

void AttentionTile::sum_maxima(int64_t blocks, float* row_max, float* scratch, float smallest) {
  bool is_nan[kTileLanes];
  for (int lane = 0; lane < lanes_; ++lane) is_nan[lane] = std::isnan(m_[lane] + l_[lane]);
  std::fill_n(m_, lanes_, -INFINITY);
  for (int64_t n = 0; n < blocks; ++n) {
    for (int lane = 0; lane < lanes_; ++lane) {
      m_[lane] = std::max(m_[lane], row_max[n * lanes_ + lane] * scale_log2_);
    }
  }
  alignas(64) float base[kTileLanes];  // no key seen: no inf - inf
  for (int lane = 0; lane < lanes_; ++lane) base[lane] = m_[lane] == -INFINITY ? 0.f : m_[lane];
  std::copy_n(row_max, blocks * lanes_, scratch);
  engine_.weights(scale_log2_, base, lanes_, blocks, scratch);
  std::fill_n(l_, lanes_, 0.f);
  for (int64_t n = 0; n < blocks; ++n) {
    for (int lane = 0; lane < lanes_; ++lane) l_[lane] += scratch[n * lanes_ + lane];
  }
  alignas(64) float least[kTileLanes];
  for (int lane = 0; lane < lanes_; ++lane) {
    least[lane] = (m_[lane] + std::log2(l_[lane]) + smallest) / scale_log2_;
    if (is_nan[lane]) l_[lane] = NAN;
  }
  for (int64_t n = 0; n < blocks; ++n) {
    for (int lane = 0; lane < lanes_; ++lane) {
      float& top = row_max[n * lanes_ + lane];
      if (top > -INFINITY) top = std::max(top, least[lane]);
    }
  }
}

void AttentionTile::add_step(std::span<const KvBlock> blocks, float* row_max) {
  const int n = static_cast<int>(blocks.size());
  const void* values[kMaxBlockKeys / 16];
  alignas(64) float block_max[kTileLanes];
  for (int i = 0; i < n; ++i) {
    values[i] = blocks[i].v;
    float* s = s_.as<float>() + size_t(i) * block_k_ * lanes_;
    float* top = row_max ? row_max + size_t(i) * lanes_ : i == 0 ? step_max_ : block_max;
    score(blocks[i], s, top);
    if (i == 0) {
      if (row_max) std::copy_n(top, lanes_, step_max_);
    } else {
      for (int lane = 0; lane < lanes_; ++lane) {
        step_max_[lane] = std::max(step_max_[lane], top[lane]);
      }
    }
  }
  const bool moved =
      engine_.softmax(scale_log2_, step_max_, lanes_, n * block_k_, s_.as<float>(), m_, l_, alpha_);
  if (has_output_) {
    const Blend blend = is_empty_ ? Blend::set : moved ? Blend::rescale : Blend::add;
    engine_.accumulate(s_.as(), values, n, block_k_, lanes_, padded_, blend, alpha_,
                       acc_.as<float>());
  }
  is_empty_ = false;
}

void AttentionTile::end() {
  const int columns = has_output_ ? head_dim_ : 0;
  if (is_empty_ && has_output_) std::fill_n(acc_.as<float>(), size_t(lanes_) * padded_, 0.f);
  engine_.finish(dtype_, acc_.as<float>(), m_, l_, lanes_, num_queries_, columns, o_, lse_);
}

void AttentionTile::weights(int64_t rows, float* x) const {
  alignas(64) float lse2[kTileLanes];
  for (int i = 0; i < lanes_; ++i) {
    lse2[i] = l_[i] == 0 ? INFINITY : m_[i] + std::log2(l_[i]);
  }
  engine_.weights(scale_log2_, lse2, lanes_, rows, x);
}

}  // namespace seer::kernels
