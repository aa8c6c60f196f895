#pragma once
// What every attention op reads and writes: packed sequences. Plain data, no torch and no CUDA in
// this header.

#include <algorithm>
#include <cstdint>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// o = softmax(scale * q k^T) v over the keys that the op lets a query see.
//
//   B       sequences
//   T, S    query and key tokens of all sequences together
//   Hq, Hk  query and key heads; Hq is a multiple of Hk; query head h reads key head h * Hk / Hq
//   D       head size
//
// Queries are the last len_q tokens of their sequence (chunked prefill): where causal, query i of a
// sequence sees key j if j <= i + len_k - len_q.
struct PackedAttentionParams {
  StridedIn q;          // [T, Hq, D]
  StridedIn k;          // [S, Hk, D]
  StridedIn v;          // [S, Hk, D]
  StridedOut o;         // [T, Hq, D]  0 where no key was seen
  float* lse;           // [Hq, T]     natural log; -inf where no key was seen
  const int32_t* cu_q;  // [B + 1]     where each sequence's queries start
  const int32_t* cu_k;  // [B + 1]     where its keys start; null: one sequence of S

  int num_seqs;      // B
  int num_q_heads;   // Hq
  int num_kv_heads;  // Hk
  int head_dim;      // D
  int64_t total_q;   // T
  int64_t total_k;   // S
  float scale;
  bool causal;
  DType dtype;  // of q, k, v and o

  // constexpr: CUDA kernels call these functions, too.
  constexpr int group() const { return num_q_heads / num_kv_heads; }  // query heads of a key head
  constexpr int64_t len_q(int seq) const { return cu_q[seq + 1] - cu_q[seq]; }
  constexpr int64_t len_k(int seq) const { return cu_k ? cu_k[seq + 1] - cu_k[seq] : total_k; }
  // Where key j of a sequence lies among the tokens of k and v.
  constexpr int64_t key_token(int seq, int64_t j) const { return (cu_k ? cu_k[seq] : 0) + j; }
  // The last key that query i of a sequence sees; negative: none.
  constexpr int64_t last_key(int seq, int64_t i) const {
    return causal ? i + len_k(seq) - len_q(seq) : len_k(seq) - 1;
  }
};

// Queries of one sequence and head that are computed together. Keys count from the sequence's start.
struct QueryTile {
  int head, kv_head;
  int q_begin, num_queries;  // the first query among all tokens; no queries where not positive
  int k_begin, k_len;
  int limit;  // query i of the tile sees keys up to limit + i, of k_len

  static constexpr int kNoLimit = 1 << 29;

  // At most `size` queries, from query `first` of the sequence on.
  static constexpr QueryTile of(const PackedAttentionParams& p, int head, int seq, int first,
                                int size) {
    const int q0 = p.cu_q[seq], q_len = p.cu_q[seq + 1] - q0;
    const int k0 = p.cu_k[seq], k_len = p.cu_k[seq + 1] - k0;
    return {.head = head,
            .kv_head = head / p.group(),
            .q_begin = q0 + first,
            .num_queries = std::min(q_len - first, size),
            .k_begin = k0,
            .k_len = k_len,
            .limit = p.causal ? first + k_len - q_len : kNoLimit};
  }
  // The last key that any of its queries sees; negative: none.
  constexpr int last_key() const { return std::min(limit + num_queries - 1, k_len - 1); }
  // Where key j lies among the tokens of k and v.
  constexpr int key_token(int j) const { return k_begin + j; }
};

}  // namespace seer::kernels
