#include "seer/kernels/attention/cpu/packed_kv.h"

#include <algorithm>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

// Packed bytes of a wave of several pairs: about the size of a large cache.
constexpr int64_t kWaveBytes = 16 << 20;

}  // namespace

PackedKv::PackedKv(const TileEngine& engine, const PackedAttentionParams& p, int block_k)
    : engine_(engine),
      p_(p),
      block_k_(block_k),
      has_values_(p.o.data != nullptr),
      block_bytes_(int64_t{block_k} * padded_head_dim(p.head_dim) * engine.element_bytes),
      slot_bytes_((has_values_ ? 2 : 1) * block_bytes_),
      capacity_(capacity()),
      packed_(static_cast<size_t>(capacity_ * slot_bytes_)) {}

// Slots for the longest sequence, or a wave of short ones, but no more than there is to pack.
int64_t PackedKv::capacity() const {
  int64_t longest = 0, all = 0;
  for (int b = 0; b < p_.num_seqs; ++b) {
    longest = std::max<int64_t>(longest, num_blocks(b));
    all += int64_t{num_blocks(b)} * p_.num_kv_heads;
  }
  return std::max(longest, std::min(all, kWaveBytes / slot_bytes_));
}

int PackedKv::num_blocks(int seq) const {
  return static_cast<int>((p_.len_k(seq) + block_k_ - 1) / block_k_);
}

bool PackedKv::next() {
  units_.clear();
  num_slots_ = 0;
  const int64_t end = int64_t{p_.num_seqs} * p_.num_kv_heads;
  for (; position_ < end; ++position_) {
    const int seq = static_cast<int>(position_ / p_.num_kv_heads);
    const int kv_head = static_cast<int>(position_ % p_.num_kv_heads);
    if (p_.len_q(seq) == 0) continue;
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
  const int64_t key0 = int64_t{j} * block_k_, token = p_.key_token(unit.seq, key0);
  const int valid = static_cast<int>(std::min<int64_t>(block_k_, p_.len_k(unit.seq) - key0));
  const auto from = [&](const StridedIn& x) {
    return element_at(p_.dtype, x.data, token * x.token_stride + unit.kv_head * x.head_stride);
  };
  char* out = packed_.as<char>() + (unit.first_slot + j) * slot_bytes_;
  engine_.pack_keys(p_.dtype, from(p_.k), p_.k.token_stride, valid, block_k_, p_.head_dim, out);
  if (has_values_) {
    engine_.pack_values(p_.dtype, from(p_.v), p_.v.token_stride, valid, block_k_, p_.head_dim,
                        out + block_bytes_);
  }
}

}  // namespace seer::kernels
