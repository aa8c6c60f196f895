#pragma once
// From the parameters of an attention op (both name their fields alike) to what the tile code
// reads.

#include <algorithm>
#include <cstdint>

#include "seer/base/error.h"
#include "seer/kernels/simd/attention_tile.h"
#include "seer/kernels/simd/element.h"
#include "seer/kernels/simd/packed_kv.h"

namespace seer::kernels {

template <class Params>
KvSource kv_source(const Params& p, int block_k) {
  return {.k = p.k.data,
          .v = p.v.data,
          .k_token_stride = p.k.token_stride,
          .k_head_stride = p.k.head_stride,
          .v_token_stride = p.v.token_stride,
          .v_head_stride = p.v.head_stride,
          .cu_q = p.cu_q,
          .cu_k = p.cu_k,
          .num_seqs = p.num_seqs,
          .num_kv_heads = p.num_kv_heads,
          .head_dim = p.head_dim,
          .block_k = block_k,
          .dtype = p.dtype};
}

// Query `local` of sequence b.
template <class Params>
TileQuery tile_query(const Params& p, int b, int64_t head, int64_t local) {
  const int64_t token = p.cu_q[b] + local;
  const int64_t len_q = p.cu_q[b + 1] - p.cu_q[b], len_k = p.cu_k[b + 1] - p.cu_k[b];
  const int64_t last = p.causal ? std::max<int64_t>(local + len_k - len_q, -1) : len_k - 1;
  return {element_at(p.dtype, p.q.data, token * p.q.token_stride + head * p.q.head_stride),
          element_at(p.dtype, p.o.data, token * p.o.token_stride + head * p.o.head_stride),
          p.lse + head * p.total_q + token, static_cast<int32_t>(last)};
}

inline void check_prefix_sums(const char* op, const char* name, const int32_t* cu, int n,
                              int64_t total) {
  SEER_CHECK(cu[0] == 0 && cu[n] == total, op, ": ", name, " goes from ", cu[0], " to ", cu[n],
             ", want 0 to ", total);
  for (int b = 0; b < n; ++b) {
    SEER_CHECK(cu[b] <= cu[b + 1], op, ": ", name, " falls from ", cu[b], " to ", cu[b + 1],
               " at sequence ", b);
  }
}

// Prefix sums must rise from 0 to their totals, and rows must be the query blocks of each sequence.
template <class Params>
void check_sequences(const char* op, const Params& p, const int32_t* cu_rows, int64_t num_rows,
                     int block_q) {
  check_prefix_sums(op, "cu_q", p.cu_q, p.num_seqs, p.total_q);
  check_prefix_sums(op, "cu_k", p.cu_k, p.num_seqs, p.total_k);
  check_prefix_sums(op, "cu_rows", cu_rows, p.num_seqs, num_rows);
  for (int b = 0; b < p.num_seqs; ++b) {
    const int64_t len = p.cu_q[b + 1] - p.cu_q[b], rows = cu_rows[b + 1] - cu_rows[b];
    const int64_t want = (len + block_q - 1) / block_q;
    SEER_CHECK(rows == want, op, ": sequence ", b, " of ", len, " queries has ", rows,
               " rows, want ", want, " of ", block_q);
  }
}

}  // namespace seer::kernels
