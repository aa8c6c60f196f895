#pragma once
// What attention ops ask of their parameters.

#include <cmath>
#include <string>

#include "seer/kernels/alignment.h"
#include "seer/kernels/attention/params.h"
#include "seer/kernels/size_limits.h"

namespace seer::kernels {

// Error: heads that do not share evenly, sizes that are negative or too large, a scale that is not a
// positive number, f64 where the op has no reference that is called.
inline void check_attention(const char* op, const PackedAttentionParams& p,
                            bool takes_f64 = false) {
  SEER_CHECK(takes_f64 || p.dtype != DType::f64, op, ": dtype is f64, want f32, f16 or bf16");
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0, op,
             ": ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
  check_most(op, "query heads", p.num_q_heads, kMostHeads);
  check_most(op, "queries", p.total_q, kMostTokens);
  check_most(op, "keys", p.total_k, kMostTokens);
  SEER_CHECK(p.num_seqs >= 0 && p.total_q >= 0 && p.total_k >= 0 && p.head_dim > 0, op, ": ",
             p.num_seqs, " sequences, ", p.total_q, " queries, ", p.total_k, " keys, head_dim ",
             p.head_dim, ", want none below 0 and head_dim above");
  SEER_CHECK(p.scale > 0 && std::isfinite(p.scale), op, ": scale is ", p.scale,
             ", want a positive number");
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
inline void check_sequences(const char* op, const PackedAttentionParams& p, const int32_t* cu_rows,
                            int64_t num_rows, int block_q) {
  check_prefix_sums(op, "cu_q", p.cu_q, p.num_seqs, p.total_q);
  check_prefix_sums(op, "cu_k", p.cu_k, p.num_seqs, p.total_k);
  check_prefix_sums(op, "cu_rows", cu_rows, p.num_seqs, num_rows);
  for (int b = 0; b < p.num_seqs; ++b) {
    const int64_t rows = cu_rows[b + 1] - cu_rows[b];
    const int64_t want = (p.len_q(b) + block_q - 1) / block_q;
    SEER_CHECK(rows == want, op, ": sequence ", b, " of ", p.len_q(b), " queries has ", rows,
               " rows, want ", want, " of ", block_q);
  }
}

// Empty, or what every GPU kernel lacks for the call's type and head size.
inline std::string why_not_on_gpus(const PackedAttentionParams& p) {
  if (p.dtype != DType::bf16 && p.dtype != DType::f16) {
    return message("dtype is ", name(p.dtype), ", want bf16 or f16");
  }
  if (p.head_dim != 64 && p.head_dim != 96 && p.head_dim != 128 && p.head_dim != 256) {
    return message("head_dim is ", p.head_dim, ", want 64, 96, 128 or 256");
  }
  return "";
}
// Empty, or why the CPU's reference does not run: it is slow, and for checks of gradients.
inline std::string why_not_reference(const PackedAttentionParams& p) {
  return p.dtype == DType::f64 ? "" : message("dtype is ", name(p.dtype), ", want f64");
}
inline std::string why_not_block(const char* name, int block) {
  return block == 64 || block == 128 ? "" : message(name, " is ", block, ", want 64 or 128");
}

// Empty, or why q, k and v cannot be read 16 bytes at a time, or o written `o_unit` elements at a time.
inline std::string why_not_aligned(const PackedAttentionParams& p, int o_unit) {
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, p.total_q, p.num_q_heads, o_unit);
  return reason;
}

}  // namespace seer::kernels
