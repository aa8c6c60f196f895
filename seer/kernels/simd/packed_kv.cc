#include "seer/kernels/simd/packed_kv.h"

#include <algorithm>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

// Packed bytes of a wave of several pairs: about the size of a large cache.
constexpr int64_t kWaveBytes = 16 << 20;

// Slots for the longest sequence, or a wave of short ones, but no more than there is to pack.
int64_t capacity_of(const KvSource& s, int64_t block_bytes) {
  int64_t longest = 0, all = 0;
  for (int b = 0; b < s.num_seqs; ++b) {
    const int64_t blocks = (s.cu_k[b + 1] - s.cu_k[b] + s.block_k - 1) / s.block_k;
    longest = std::max(longest, blocks);
    all += blocks * s.num_kv_heads;
  }
  return std::max(longest, std::min(all, kWaveBytes / (2 * block_bytes)));
}

}  // namespace

PackedKv::PackedKv(const TileEngine& engine, const KvSource& source)
    : engine_(engine),
      source_(source),
      block_bytes_(int64_t{source.block_k} * padded_head_dim(source.head_dim) *
                   engine.element_bytes),
      capacity_(capacity_of(source, block_bytes_)),
      packed_(static_cast<size_t>(capacity_ * 2 * block_bytes_)) {}

int PackedKv::num_blocks(int seq) const {
  const int len = source_.cu_k[seq + 1] - source_.cu_k[seq];
  return (len + source_.block_k - 1) / source_.block_k;
}

bool PackedKv::next() {
  units_.clear();
  num_slots_ = 0;
  const int64_t end = int64_t{source_.num_seqs} * source_.num_kv_heads;
  for (; position_ < end; ++position_) {
    const int seq = static_cast<int>(position_ / source_.num_kv_heads);
    const int kv_head = static_cast<int>(position_ % source_.num_kv_heads);
    if (source_.cu_q[seq + 1] == source_.cu_q[seq]) continue;
    const int blocks = num_blocks(seq);
    if (num_slots_ + blocks > capacity_) break;
    units_.push_back({seq, kv_head, blocks, num_slots_});
    num_slots_ += blocks;
  }
  return !units_.empty();
}

void PackedKv::pack(const uint8_t* wanted) {
  std::vector<std::pair<const Unit*, int>> blocks;
  for (const Unit& unit : units_) {
    for (int j = 0; j < unit.num_blocks; ++j) {
      if (!wanted || wanted[unit.first_slot + j]) blocks.emplace_back(&unit, j);
    }
  }
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < blocks.size(); ++i) pack_block(*blocks[i].first, blocks[i].second);
}

void PackedKv::pack_block(const Unit& unit, int j) {
  const KvSource& s = source_;
  const int64_t first = s.cu_k[unit.seq] + int64_t{j} * s.block_k;
  const int valid = static_cast<int>(std::min<int64_t>(s.block_k, s.cu_k[unit.seq + 1] - first));
  const int64_t k_begin = first * s.k_token_stride + unit.kv_head * s.k_head_stride;
  const int64_t v_begin = first * s.v_token_stride + unit.kv_head * s.v_head_stride;
  char* out = packed_.as<char>() + (unit.first_slot + j) * 2 * block_bytes_;
  engine_.pack_keys(s.dtype, element_at(s.dtype, s.k, k_begin), s.k_token_stride, valid, s.block_k,
                    s.head_dim, out);
  engine_.pack_values(s.dtype, element_at(s.dtype, s.v, v_begin), s.v_token_stride, valid,
                      s.block_k, s.head_dim, out + block_bytes_);
}

}  // namespace seer::kernels
