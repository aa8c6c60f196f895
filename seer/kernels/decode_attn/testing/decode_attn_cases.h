#pragma once
// For tests: named calls of decode_attn, the inputs they mean, and the reference that results are
// compared with.

#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "seer/kernels/attention/testing/attention_call.h"
#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/decode_attn/params.h"
#include "seer/kernels/decode_attn/reference.h"

namespace seer::kernels {

struct DecodeAttnCase {
  const char* name;
  std::vector<int> k_lens;
  int num_queries = 1;
  int heads_q = 8, heads_kv = 2, head_dim = 64;
  int window = 0;
  int padding = 0;           // elements between rows
  bool heads_first = false;  // keys of a head lie together, as in a cache

  friend void PrintTo(const DecodeAttnCase& c, std::ostream* out) { *out << c.name; }
};

// Named odd cases that every implementation must get right, where it takes them.
inline const std::vector<DecodeAttnCase> kDecodeAttnCases = {
    {.name = "one_key", .k_lens = {1}},
    {.name = "two_keys", .k_lens = {2}},
    {.name = "keys_65", .k_lens = {65}},
    {.name = "several_pieces", .k_lens = {1700}},
    {.name = "whole_pieces", .k_lens = {1024}},
    {.name = "gqa_1", .k_lens = {200}, .heads_q = 3, .heads_kv = 3},
    {.name = "gqa_7", .k_lens = {200}, .heads_q = 14},
    {.name = "gqa_8", .k_lens = {200}, .heads_q = 8, .heads_kv = 1},
    {.name = "gqa_24", .k_lens = {90}, .heads_q = 24, .heads_kv = 1},
    {.name = "unequal_lengths", .k_lens = {1, 700, 64, 65, 1300}},
    {.name = "empty_sequence", .k_lens = {0, 40, 0, 0, 33}},
    {.name = "no_keys", .k_lens = {0}},
    {.name = "many_sequences", .k_lens = std::vector<int>(70, 11)},
    {.name = "window_1", .k_lens = {300}, .window = 1},
    {.name = "window_100", .k_lens = {900, 40, 100, 101}, .window = 100},
    {.name = "window_of_pieces", .k_lens = {3000}, .window = 1100},
    {.name = "window_longer_than_keys", .k_lens = {60, 4}, .window = 4096},
    {.name = "queries_3", .k_lens = {70, 600}, .num_queries = 3},
    {.name = "queries_8_of_fewer_keys", .k_lens = {5, 8, 9, 0}, .num_queries = 8},
    {.name = "queries_8_window", .k_lens = {700, 12}, .num_queries = 8, .window = 9},
    {.name = "strided", .k_lens = {190, 70}, .padding = 24},
    {.name = "heads_first", .k_lens = {190, 70}, .heads_first = true},
    {.name = "d_1", .k_lens = {40}, .num_queries = 8, .head_dim = 1},
    {.name = "d_20", .k_lens = {600}, .head_dim = 20},
    {.name = "d_80", .k_lens = {100}, .head_dim = 80},
    {.name = "d_96", .k_lens = {600}, .head_dim = 96},
    {.name = "d_100", .k_lens = {600, 7}, .head_dim = 100},
    {.name = "d_100_heads_first", .k_lens = {600, 7}, .head_dim = 100, .heads_first = true},
    {.name = "d_128", .k_lens = {600}, .head_dim = 128},
    {.name = "d_128_gqa_4_batch", .k_lens = {513, 2}, .num_queries = 2, .head_dim = 128},
    {.name = "d_256", .k_lens = {600}, .head_dim = 256},
    {.name = "d_260", .k_lens = {65}, .head_dim = 260},
};

struct DecodeAttnCall : AttentionCall {
  DecodeAttnCase shape;

  DecodeAttnCall(const DecodeAttnCase& c, DType dtype, uint64_t seed = 1)
      : AttentionCall(std::vector<int>(c.k_lens.size(), c.num_queries), c.k_lens, c.heads_q,
                      c.heads_kv, c.head_dim, c.padding, dtype),
        shape(c) {
    for (AttentionTensor* x : {&k, &v}) {
      if (!c.heads_first) continue;
      x->token_stride = c.head_dim;
      x->head_stride = x->tokens * c.head_dim;
    }
    Random random(seed);
    fill_normal(random);
  }

  DecodeAttnParams params() {
    DecodeAttnParams p{packed(/*causal=*/true)};
    p.cu_q = nullptr;  // not read
    p.num_queries = shape.num_queries;
    p.window = shape.window;
    return p;
  }
};

// Empty, or how the call's results differ from those of the reference on the same values in f32.
inline std::string far_from_reference(const DecodeAttnCall& call, const Limits& o) {
  DecodeAttnCall wide = widened(call);
  decode_attn_reference(wide.params());
  return far_from(call, wide, o);
}

}  // namespace seer::kernels
