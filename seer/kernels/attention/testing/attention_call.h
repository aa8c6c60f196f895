#pragma once
// Calls of attention ops for tests: packed sequences of random numbers, the same on every device.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "seer/base/dtype.h"
#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/kernels/attention/params.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {

// A [tokens, heads, head_dim] tensor that owns its memory. Rows may be padded: what lies between
// them is NaN, so that reading it shows.
struct AttentionTensor {
  DType dtype;
  int64_t tokens, token_stride, head_stride;
  int heads, head_dim;
  std::vector<std::byte> bytes;

  AttentionTensor(DType type, int64_t num_tokens, int num_heads, int dim, int padding = 0)
      : dtype(type),
        tokens(num_tokens),
        token_stride(int64_t{num_heads} * (dim + padding) + padding),
        head_stride(dim + padding),
        heads(num_heads),
        head_dim(dim),
        bytes(static_cast<size_t>(num_tokens * token_stride) * size_of(type)) {
    for (int64_t i = 0; i < num_tokens * token_stride; ++i) {
      store_element(dtype, bytes.data(), i, std::numeric_limits<float>::quiet_NaN());
    }
  }

  int64_t index(int64_t token, int head, int d) const {
    return token * token_stride + head * head_stride + d;
  }
  float at(int64_t token, int head, int d) const {
    return load_element(dtype, bytes.data(), index(token, head, d));
  }
  void set(int64_t token, int head, int d, float x) {
    store_element(dtype, bytes.data(), index(token, head, d), x);
  }
  // Values in the order of the axes.
  void assign(const std::vector<float>& values) {
    SEER_CHECK(static_cast<int64_t>(values.size()) == tokens * heads * head_dim, values.size(),
               " values, want ", tokens * heads * head_dim);
    const float* x = values.data();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int h = 0; h < heads; ++h) {
        for (int d = 0; d < head_dim; ++d) set(t, h, d, *x++);
      }
    }
  }
  void fill_normal(Random& random) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int h = 0; h < heads; ++h) {
        for (int d = 0; d < head_dim; ++d) set(t, h, d, static_cast<float>(random.normal()));
      }
    }
  }
  // The same values as f32, without padding.
  AttentionTensor widened() const {
    AttentionTensor wide(DType::f32, tokens, heads, head_dim);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int h = 0; h < heads; ++h) {
        for (int d = 0; d < head_dim; ++d) wide.set(t, h, d, at(t, h, d));
      }
    }
    return wide;
  }
  StridedIn in() const { return {bytes.data(), token_stride, head_stride}; }
  StridedOut out() { return {bytes.data(), token_stride, head_stride}; }
};

// 0 and the running sums of ceil(lengths / unit).
inline std::vector<int32_t> prefix_sums(const std::vector<int>& lengths, int unit = 1) {
  std::vector<int32_t> sums = {0};
  for (const int n : lengths) sums.push_back(sums.back() + (n + unit - 1) / unit);
  return sums;
}

// Owns what a call of any attention op reads and writes.
struct AttentionCall {
  std::vector<int32_t> cu_q, cu_k;
  AttentionTensor q, k, v, o;
  std::vector<float> lse, map;  // only pooled_attn has a map

  // padding: elements between rows
  AttentionCall(const std::vector<int>& q_lens, const std::vector<int>& k_lens, int heads_q,
                int heads_kv, int head_dim, int padding, DType dtype)
      : cu_q(prefix_sums(q_lens)),
        cu_k(prefix_sums(k_lens)),
        q(dtype, cu_q.back(), heads_q, head_dim, padding),
        k(dtype, cu_k.back(), heads_kv, head_dim, padding),
        v(dtype, cu_k.back(), heads_kv, head_dim, padding),
        o(dtype, cu_q.back(), heads_q, head_dim, padding),
        lse(static_cast<size_t>(q.tokens * heads_q), NAN) {}

  void fill_normal(Random& random) {
    for (AttentionTensor* x : {&q, &k, &v}) x->fill_normal(random);
  }

  PackedAttentionParams packed(bool causal) {
    return {.q = q.in(),
            .k = k.in(),
            .v = v.in(),
            .o = o.out(),
            .lse = lse.data(),
            .cu_q = cu_q.data(),
            .cu_k = cu_k.data(),
            .num_seqs = static_cast<int>(cu_k.size()) - 1,
            .num_q_heads = q.heads,
            .num_kv_heads = k.heads,
            .head_dim = q.head_dim,
            .total_q = q.tokens,
            .total_k = k.tokens,
            .scale = 1.f / std::sqrt(static_cast<float>(q.head_dim)),
            .causal = causal,
            .dtype = q.dtype};
  }
};

}  // namespace seer::kernels
