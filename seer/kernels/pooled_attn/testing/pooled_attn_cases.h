#pragma once
// Named odd cases of pooled_attn and the reference that results are compared with. For tests.

#include <cmath>
#include <string>
#include <vector>

#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/pooled_attn/reference.h"
#include "seer/kernels/pooled_attn/testing/pooled_attn_case.h"

namespace seer::kernels {

inline const std::vector<PooledAttnCase> kPooledAttnCases = {
    {.name = "one_token", .q_lens = {1}, .k_lens = {1}, .normalise = true},
    {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .heads_q = 8, .heads_kv = 2},
    {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}, .normalise = true},
    {.name = "empty_sequence",
     .q_lens = {70, 0, 33, 20},
     .k_lens = {70, 40, 33, 0},
     .normalise = true},
    {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}},
    {.name = "gqa_7", .q_lens = {150}, .k_lens = {150}, .heads_q = 14, .heads_kv = 2},
    {.name = "gqa_7_group_max",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 14,
     .heads_kv = 2,
     .group_max = true,
     .normalise = true},
    {.name = "chunked", .q_lens = {128}, .k_lens = {448}},
    {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}, .normalise = true},
    {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}, .normalise = true},
    {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
    {.name = "strided", .q_lens = {130}, .k_lens = {190}, .padding = 24},
    {.name = "block_q_1", .q_lens = {150, 3}, .k_lens = {150, 80}, .block_q = 1, .normalise = true},
    {.name = "block_q_1_group_max",
     .q_lens = {90},
     .k_lens = {90},
     .heads_q = 4,
     .heads_kv = 2,
     .block_q = 1,
     .block_k = 16,
     .group_max = true,
     .normalise = true},
    {.name = "block_q_24", .q_lens = {150}, .k_lens = {150}, .block_q = 24, .block_k = 16},
    {.name = "block_q_100", .q_lens = {250}, .k_lens = {250}, .block_q = 100},
    {.name = "block_16", .q_lens = {150}, .k_lens = {150}, .block_q = 16, .block_k = 16},
    {.name = "block_32", .q_lens = {150}, .k_lens = {170}, .block_q = 32, .block_k = 32},
    {.name = "block_48_80", .q_lens = {250}, .k_lens = {250}, .block_q = 48, .block_k = 80},
    {.name = "block_128", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 128},
    {.name = "block_q_1_block_128",
     .q_lens = {100},
     .k_lens = {333},
     .heads_q = 6,
     .head_dim = 256,
     .block_q = 1,
     .block_k = 128,
     .group_max = true},
    {.name = "block_q_1_every_head",
     .q_lens = {100, 70},
     .k_lens = {333, 70},
     .head_dim = 128,
     .block_q = 1},
    {.name = "block_64_128", .q_lens = {333}, .k_lens = {400}, .head_dim = 128, .block_k = 128},
    {.name = "block_128_64",
     .q_lens = {200, 90},
     .k_lens = {333, 90},
     .head_dim = 128,
     .block_q = 128,
     .normalise = true},
    {.name = "block_128_d_256",
     .q_lens = {300},
     .k_lens = {300},
     .head_dim = 256,
     .block_q = 128,
     .block_k = 128},
    {.name = "many_sequences",
     .q_lens = {1, 64, 0, 65, 127, 128, 129, 3, 0, 200},
     .k_lens = {1, 64, 9, 65, 127, 128, 129, 300, 0, 200},
     .head_dim = 128},
    {.name = "gqa_7_d_128_group_max",
     .q_lens = {150, 290},
     .k_lens = {250, 290},
     .heads_q = 14,
     .heads_kv = 2,
     .head_dim = 128,
     .group_max = true,
     .normalise = true},
    {.name = "odd_offset_d_128", .q_lens = {200}, .k_lens = {437}, .head_dim = 128},
    {.name = "q_longer_than_k_d_128", .q_lens = {400}, .k_lens = {190}, .head_dim = 128},
    {.name = "not_causal_d_128",
     .q_lens = {190, 64},
     .k_lens = {300, 70},
     .head_dim = 128,
     .causal = false},
    {.name = "strided_d_128", .q_lens = {130}, .k_lens = {190}, .head_dim = 128, .padding = 24},
    {.name = "d_8", .q_lens = {150}, .k_lens = {150}, .head_dim = 8},
    {.name = "d_1", .q_lens = {70}, .k_lens = {70}, .head_dim = 1},
    {.name = "d_20", .q_lens = {150}, .k_lens = {150}, .head_dim = 20},
    {.name = "d_100_strided", .q_lens = {90}, .k_lens = {150}, .head_dim = 100, .padding = 3},
    {.name = "d_40", .q_lens = {150}, .k_lens = {150}, .head_dim = 40},
    {.name = "d_96", .q_lens = {150}, .k_lens = {150}, .head_dim = 96},
    {.name = "d_128", .q_lens = {150}, .k_lens = {150}, .head_dim = 128},
    {.name = "d_256", .q_lens = {150}, .k_lens = {150}, .head_dim = 256},
    // What a NaN touches and what it leaves: rows, blocks behind what its query sees, other heads.
    {.name = "nan_query", .q_lens = {70, 150}, .k_lens = {70, 200}, .nan_query = 100},
    {.name = "nan_query_normalised",
     .q_lens = {150},
     .k_lens = {210},
     .head_dim = 128,
     .normalise = true,
     .nan_query = 3},
    {.name = "nan_query_d_256", .q_lens = {70}, .k_lens = {110}, .head_dim = 256, .nan_query = 20},
    {.name = "nan_key", .q_lens = {200}, .k_lens = {200}, .nan_key = 70},
    {.name = "nan_key_not_causal", .q_lens = {70}, .k_lens = {200}, .causal = false, .nan_key = 70},
    {.name = "nan_group_max",
     .q_lens = {130},
     .k_lens = {190},
     .heads_q = 4,
     .heads_kv = 2,
     .head_dim = 128,
     .group_max = true,
     .nan_query = 65},
    {.name = "nan_map_row_per_token",
     .q_lens = {65, 30},
     .k_lens = {150, 30},
     .block_q = 1,
     .nan_query = 3},
    {.name = "nan_blocks_of_128",
     .q_lens = {200},
     .k_lens = {300},
     .block_q = 128,
     .block_k = 128,
     .nan_query = 20},
};

// Of the map alone: weights that are a softmax over blocks, as lookup heads have them.
inline const std::vector<PooledAttnCase> kBlockSoftmaxCases = [] {
  std::vector<PooledAttnCase> cases = {
      {.name = "one_token", .q_lens = {1}, .k_lens = {1}},
      {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .head_dim = 32},
      {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}, .head_dim = 32},
      {.name = "empty_sequence", .q_lens = {70, 0, 33, 20}, .k_lens = {70, 40, 33, 0}},
      {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}, .head_dim = 32},
      {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}, .normalise = true},
      {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}, .head_dim = 32},
      {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
      {.name = "strided", .q_lens = {130}, .k_lens = {190}, .head_dim = 32, .padding = 24},
      {.name = "many_sequences",
       .q_lens = {1, 64, 0, 65, 127, 128, 129, 3, 0, 200, 300},
       .k_lens = {1, 64, 9, 65, 127, 128, 129, 300, 0, 200, 333},
       .head_dim = 32},
      {.name = "many_blocks", .q_lens = {70}, .k_lens = {8500}, .head_dim = 32},
      {.name = "rank_16", .q_lens = {150}, .k_lens = {210}, .head_dim = 16},
      {.name = "block_16", .q_lens = {150}, .k_lens = {150}, .block_q = 16, .block_k = 16},
      {.name = "block_128", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 128},
      {.name = "nan_query", .q_lens = {70, 150}, .k_lens = {70, 200}, .nan_query = 100},
      {.name = "nan_key", .q_lens = {200}, .k_lens = {200}, .head_dim = 32, .nan_key = 70},
      {.name = "nan_key_not_causal",
       .q_lens = {70},
       .k_lens = {200},
       .causal = false,
       .nan_key = 70},
  };
  // More tiles than a GPU has multiprocessors.
  PooledAttnCase many_tiles = {
      .name = "many_tiles", .q_lens = {1500}, .k_lens = {1733}, .heads_q = 4, .head_dim = 32};
  for (int i = 1; i < 45; ++i) {
    many_tiles.q_lens.push_back(i * 37 % 290);
    many_tiles.k_lens.push_back(i * 37 % 290 + i % 3 * 41);
  }
  cases.push_back(many_tiles);
  for (PooledAttnCase& c : cases) {
    c.heads_kv = c.heads_q;  // each has keys of its own
    c.map_alone = c.block_softmax = true;
  }
  return cases;
}();

// For GPUs: more key blocks than the warps of a tile turn into the map at once.
inline const std::vector<PooledAttnCase> kPooledAttnLongCases = {
    {.name = "many_blocks", .q_lens = {70}, .k_lens = {8500}},
    {.name = "many_blocks_group_max",
     .q_lens = {65},
     .k_lens = {8500},
     .head_dim = 128,
     .group_max = true,
     .normalise = true},
};

// With o and without.
inline std::vector<PooledAttnCase> with_and_without_o(PooledAttnCase shape) {
  std::vector<PooledAttnCase> both(2, shape);
  both[1].map_alone = true;
  return both;
}

// As exact as scores and lse, for bf16, too.
inline constexpr Limits kMapLimits = kLseLimits;

// Where scores are summed in f16 (params.h).
inline constexpr Limits kF16ScoreLimits = {1e-2, 1e-2, 1e-4};

// The same call in f32, by the reference.
struct PooledAttnReference {
  explicit PooledAttnReference(const PooledAttnCall& call) : wide(widened(call)) {
    pooled_attn_reference(wide.params());
  }
  // `weights`: of lse and map.
  std::string compare(const PooledAttnCall& call, const Limits& o,
                      const Limits& weights = kMapLimits) const {
    std::string wrong = far_from(call, wide, o, weights);
    if (!wrong.empty()) return wrong;
    wrong = far_from(call.map, wide.map, weights);
    return wrong.empty() ? "" : "map: " + wrong;
  }
  PooledAttnCall wide;
};

}  // namespace seer::kernels
