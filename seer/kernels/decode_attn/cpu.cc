// Tasks are pieces of keys of one sequence and key head, with all queries that read them; their
// results are then combined in order, so that the bits do not depend on threads.

#include "seer/kernels/decode_attn/cpu.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/decode_attn/cpu_piece.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/simd/aligned_buffer.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = DecodeAttnParams;

constexpr int kPieceKeys = 512;

// Rows of a piece are (query, head of the group) pairs, queries first.
class DecodeStep {
 public:
  DecodeStep(const Params& p, const DecodeKernels& kernels)
      : p_(p),
        kernels_(kernels),
        group_(p.group()),
        rows_(p.num_queries * group_),
        size_(kernels.padded(p.head_dim)),
        q_(sizeof(float) *
           static_cast<size_t>(int64_t{p.num_seqs} * p.num_kv_heads * rows_ * size_)),
        ml_(sizeof(float) * static_cast<size_t>(2 * num_tasks() * rows_)),
        acc_(sizeof(float) * static_cast<size_t>(num_tasks() * rows_ * size_)) {}

  int64_t num_tasks() const { return num_slots(p_) * p_.num_kv_heads; }
  int64_t num_results() const { return int64_t{p_.num_seqs} * p_.num_kv_heads * rows_; }
  size_t scratch_floats() const {
    return static_cast<size_t>(rows_ + size_) * kDecodeBlock + 2 * static_cast<size_t>(rows_);
  }

  // Row `row` of a key head of a sequence.
  void pack(int64_t result) {
    const int64_t unit = result / rows_;
    const int row = static_cast<int>(result % rows_);
    kernels_.pack_query(p_.dtype, p_.head_dim, element_at(p_.dtype, p_.q.data, at(p_.q, unit, row)),
                        p_.scale * static_cast<float>(M_LOG2E), q_.as<float>() + result * size_);
  }

  // Key head by key head, so that neighbours in time are neighbours in memory.
  void attend(int64_t task, float* scratch) {
    const int64_t slots = num_slots(p_), slot = task % slots, kv_head = task / slots;
    const Piece piece = piece_of(p_, slot);
    if (piece.begin >= piece.end) return;
    const int64_t first = p_.key_token(piece.seq, piece.begin);
    auto* begin = reinterpret_cast<int32_t*>(scratch + (rows_ + size_) * kDecodeBlock);
    auto* end = begin + rows_;
    for (int row = 0; row < rows_; ++row) {
      const Visible seen = visible_to(p_, p_.len_k(piece.seq), row / group_);
      const int64_t keys = piece.end - piece.begin;
      begin[row] = static_cast<int32_t>(std::clamp<int64_t>(seen.begin - piece.begin, 0, keys));
      end[row] = static_cast<int32_t>(std::clamp<int64_t>(seen.end - piece.begin, 0, keys));
    }
    const auto start = [&](const StridedIn& x) {
      return element_at(p_.dtype, x.data, first * x.token_stride + kv_head * x.head_stride);
    };
    kernels_.attend(
        p_.dtype, p_.head_dim,
        {.k = start(p_.k),
         .v = start(p_.v),
         .k_stride = p_.k.token_stride,
         .v_stride = p_.v.token_stride,
         .num_keys = static_cast<int>(piece.end - piece.begin),
         .rows = rows_,
         .q = q_.as<float>() + (piece.seq * int64_t{p_.num_kv_heads} + kv_head) * rows_ * size_,
         .begin = begin,
         .end = end,
         .s = scratch,
         .wide = scratch + rows_ * kDecodeBlock,
         .m = ml_.as<float>() + 2 * task * rows_,
         .l = ml_.as<float>() + (2 * task + 1) * rows_,
         .acc = acc_.as<float>() + task * rows_ * size_});
  }

  // o = sum_i 2^(m_i - m) acc_i / l over the pieces.
  void combine(int64_t result) {
    const int64_t unit = result / rows_, kv_head = unit % p_.num_kv_heads;
    const int row = static_cast<int>(result % rows_),
              seq = static_cast<int>(unit / p_.num_kv_heads);
    const int64_t pieces = num_pieces_of(p_, p_.len_k(seq));
    const int64_t task0 = kv_head * num_slots(p_) + first_slot_of(p_, seq);
    const auto m = [&](int64_t i) { return ml_.as<float>()[2 * (task0 + i) * rows_ + row]; };
    const auto l = [&](int64_t i) { return ml_.as<float>()[(2 * (task0 + i) + 1) * rows_ + row]; };
    float top = -INFINITY, total = 0;
    for (int64_t i = 0; i < pieces; ++i) top = std::max(top, m(i));
    std::vector<float> sum(static_cast<size_t>(size_)), o(static_cast<size_t>(p_.head_dim));
    for (int64_t i = 0; i < pieces; ++i) {
      if (l(i) == 0) continue;  // no key seen; l is NaN where a score was
      const float weight = std::exp2(m(i) - (top == -INFINITY ? 0.f : top));
      const float* acc = acc_.as<float>() + ((task0 + i) * rows_ + row) * size_;
      total += weight * l(i);
      for (int d = 0; d < size_; ++d) sum[d] += weight * acc[d];
    }
    const float inverse = total == 0 ? 0 : 1 / total;
    for (float& x : sum) x *= inverse;
    kernels_.unpack(p_.dtype, p_.head_dim, sum.data(), o.data());
    const int64_t to = at(p_.o, unit, row);
    for (int d = 0; d < p_.head_dim; ++d) store_element(p_.dtype, p_.o.data, to + d, o[d]);
    const int64_t token = int64_t{seq} * p_.num_queries + row / group_;
    p_.lse[(kv_head * group_ + row % group_) * p_.total_q + token] =
        total == 0 ? -INFINITY : static_cast<float>(M_LN2) * (top + std::log2(total));
  }

 private:
  // Where a row of a (sequence, key head) unit lies in q or o.
  template <class Pointer>
  int64_t at(const Strided<Pointer>& x, int64_t unit, int row) const {
    const int64_t token = unit / p_.num_kv_heads * p_.num_queries + row / group_;
    const int64_t head = unit % p_.num_kv_heads * group_ + row % group_;
    return token * x.token_stride + head * x.head_stride;
  }

  const Params& p_;
  const DecodeKernels& kernels_;
  int group_, rows_, size_;
  AlignedBuffer q_, ml_, acc_;
};

}  // namespace

void decode_attn_cpu(const DecodeAttnParams& given, const DecodeKernels& kernels) {
  if (given.cu_k) {
    check_prefix_sums("decode_attn", "cu_k", given.cu_k, given.num_seqs, given.total_k);
  }
  Params p = given;
  p.split = kPieceKeys;
  DecodeStep step(p, kernels);
  const int64_t tasks = step.num_tasks(), results = step.num_results();
  const int threads = static_cast<int>(
      std::clamp<int64_t>(std::max(tasks, results / 64), 1, omp_get_max_threads()));
#pragma omp parallel num_threads(threads)
  {
    AlignedBuffer scratch(step.scratch_floats() * sizeof(float));
#pragma omp for schedule(static)
    for (int64_t i = 0; i < results; ++i) step.pack(i);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < tasks; ++i) step.attend(i, scratch.as<float>());
#pragma omp for schedule(static)
    for (int64_t i = 0; i < results; ++i) step.combine(i);
  }
}

}  // namespace seer::kernels
