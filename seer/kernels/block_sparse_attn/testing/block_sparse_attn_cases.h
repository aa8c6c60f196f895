#pragma once
// For tests: named calls of block_sparse_attn, and what is right about their results.

#include <cmath>
#include <string>
#include <vector>

#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/block_sparse_attn/reference.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_case.h"

namespace seer::kernels {

// Named odd cases that every implementation must get right, where it takes them.
inline const std::vector<BlockSparseAttnCase> kBlockSparseAttnCases = {
    {.name = "one_token", .q_lens = {1}, .k_lens = {1}},
    {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .heads_q = 8, .heads_kv = 2},
    {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}},
    {.name = "empty_row", .q_lens = {300}, .k_lens = {300}, .density = 0.2, .keep_diagonal = false},
    {.name = "empty_sequence", .q_lens = {70, 0, 33, 20}, .k_lens = {70, 40, 33, 0}},
    {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}},
    {.name = "gqa_7", .q_lens = {150}, .k_lens = {150}, .heads_q = 14, .heads_kv = 2},
    {.name = "gqa_7_lists_per_kv_head",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 14,
     .heads_kv = 2,
     .lists_per_kv_head = true},
    {.name = "list_full", .q_lens = {256}, .k_lens = {256}, .density = 1},
    {.name = "only_diagonal", .q_lens = {256}, .k_lens = {256}, .density = 0},
    {.name = "chunked", .q_lens = {128}, .k_lens = {448}},
    {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}},
    {.name = "edge_one_before_tile_end", .q_lens = {100}, .k_lens = {114}, .density = 1},
    {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}},
    {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
    {.name = "strided", .q_lens = {130}, .k_lens = {190}, .padding = 24},
    {.name = "block_16", .q_lens = {150}, .k_lens = {150}, .block_q = 16, .block_k = 16},
    {.name = "block_16_lists_per_kv_head",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 6,
     .heads_kv = 2,
     .block_q = 16,
     .block_k = 16,
     .lists_per_kv_head = true},
    {.name = "block_32", .q_lens = {150}, .k_lens = {170}, .block_q = 32, .block_k = 32},
    {.name = "block_48_80", .q_lens = {250}, .k_lens = {250}, .block_q = 48, .block_k = 80},
    {.name = "block_128", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 128},
    {.name = "block_128_16", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 16},
    {.name = "block_q_1", .q_lens = {40}, .k_lens = {100}, .block_q = 1, .block_k = 16},
    {.name = "block_64_128", .q_lens = {330}, .k_lens = {410}, .block_k = 128},
    {.name = "block_128_64", .q_lens = {200, 90}, .k_lens = {200, 290}, .block_q = 128},
    {.name = "many_sequences",
     .q_lens = {0, 1, 2, 63, 64, 65, 0, 0, 127, 128, 129, 3, 1, 200, 0},
     .k_lens = {9, 1, 1, 64, 63, 65, 0, 5, 127, 256, 130, 4, 0, 300, 0}},
    {.name = "d_8", .q_lens = {150}, .k_lens = {150}, .head_dim = 8},
    {.name = "d_1", .q_lens = {70}, .k_lens = {70}, .head_dim = 1},
    {.name = "d_20", .q_lens = {150}, .k_lens = {150}, .head_dim = 20},
    {.name = "d_100_strided", .q_lens = {90}, .k_lens = {150}, .head_dim = 100, .padding = 3},
    {.name = "d_40", .q_lens = {150}, .k_lens = {150}, .head_dim = 40},
    {.name = "d_96", .q_lens = {150}, .k_lens = {150}, .head_dim = 96},
    {.name = "d_128", .q_lens = {150}, .k_lens = {150}, .head_dim = 128},
    {.name = "d_256", .q_lens = {150}, .k_lens = {150}, .head_dim = 256},
    {.name = "d_256_block_128_not_causal",
     .q_lens = {140},
     .k_lens = {210},
     .head_dim = 256,
     .block_q = 128,
     .block_k = 128,
     .causal = false},
};

// The same call in f32, by the reference.
struct BlockSparseAttnReference {
  explicit BlockSparseAttnReference(const BlockSparseAttnCall& call) : wide(widened(call)) {
    block_sparse_attn_reference(wide.params());
  }
  // Empty, or what is wrong with the call's results.
  std::string compare(const BlockSparseAttnCall& call, const Limits& o,
                      const Limits& lse = kLseLimits) const {
    return far_from(call, wide, o, lse);
  }
  BlockSparseAttnCall wide;
};

// Dense causal attention of one sequence in double, but for what any kernel on tensor cores rounds:
// p = exp(score - largest) before p v, and o.
inline std::vector<float> rounded_dense_attention(const BlockSparseAttnCall& call) {
  const AttentionTensor &q = call.q, &k = call.k, &v = call.v;
  AttentionTensor o(q.dtype, q.tokens, q.heads, q.head_dim);
  std::vector<double> p(static_cast<size_t>(k.tokens));
  for (int64_t i = 0; i < q.tokens; ++i) {
    for (int h = 0; h < q.heads; ++h) {
      const int kv = h * k.heads / q.heads;
      const int64_t keys = i + 1 + k.tokens - q.tokens;
      double top = -INFINITY, total = 0;
      for (int64_t j = 0; j < keys; ++j) {
        p[j] = 0;
        for (int d = 0; d < q.head_dim; ++d) p[j] += double(q.at(i, h, d)) * k.at(j, kv, d);
        top = std::max(top, p[j] /= std::sqrt(double(q.head_dim)));
      }
      for (int64_t j = 0; j < keys; ++j) {
        total += p[j] = std::exp(p[j] - top);
        uint16_t rounded;
        store_element(q.dtype, &rounded, 0, float(p[j]));
        p[j] = load_element(q.dtype, &rounded, 0);
      }
      for (int d = 0; d < q.head_dim; ++d) {
        double sum = 0;
        for (int64_t j = 0; j < keys; ++j) sum += p[j] * v.at(j, kv, d);
        o.set(i, h, d, float(sum / total));
      }
    }
  }
  return values_of(o);
}

// Takes the block out of every list.
inline void unlist_block(BlockSparseAttnCall& call, int block) {
  std::vector<int32_t> kept;
  for (size_t i = 0; i < call.count.size(); ++i) {
    const int64_t old = call.begin[i];
    call.begin[i] = static_cast<int64_t>(kept.size());
    for (int n = 0; n < call.count[i]; ++n) {
      if (call.list[old + n] != block) kept.push_back(call.list[old + n]);
    }
    call.count[i] = static_cast<int32_t>(kept.size() - call.begin[i]);
  }
  call.list = kept;
}

}  // namespace seer::kernels
