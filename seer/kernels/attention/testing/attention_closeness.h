#pragma once
// For tests of attention: how near results must come to a reference, and whether they do.

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/kernels/attention/testing/attention_call.h"
#include "seer/kernels/testing/closeness.h"

namespace seer::kernels {

// Of o, where p is summed as f32.
inline Limits o_limits(DType dtype) {
  if (dtype == DType::bf16) return {4e-3, 2.5e-3, 4e-6};
  if (dtype == DType::f16) return {5e-4, 3e-4, 1e-7};
  return {2e-6, 1e-6, 1e-12};
}

// Of o, where p is rounded before p v.
inline Limits o_limits_of_rounded_p(DType p_dtype) {
  return p_dtype == DType::bf16 ? Limits{1e-2, 5e-3, 1.5e-5} : Limits{2e-3, 7e-4, 3e-7};
}

// Scores are f32 in every implementation, and so is lse.
inline constexpr Limits kLseLimits = {1e-5, 1e-5, 1e-9};

// The values of a tensor, [tokens, heads, head_dim].
inline std::vector<float> values_of(const AttentionTensor& x) {
  const AttentionTensor wide = x.widened();
  const auto* values = reinterpret_cast<const float*>(wide.bytes.data());
  return {values, values + wide.bytes.size() / sizeof(float)};
}

inline std::string far_from(const std::vector<float>& got, const std::vector<float>& want,
                            const Limits& limits) {
  if (got.size() != want.size()) return message(got.size(), " values, want ", want.size());
  return far_from(got.data(), want.data(), want.size(), limits);
}

// Empty, or what is wrong with o and lse of a call beside those of another.
template <class Call>
std::string far_from(const Call& got, const Call& want, const Limits& o,
                     const Limits& lse = kLseLimits) {
  std::string wrong = far_from(values_of(got.o), values_of(want.o), o);
  if (!wrong.empty()) return "o: " + wrong;
  wrong = far_from(got.lse, want.lse, lse);
  return wrong.empty() ? "" : "lse: " + wrong;
}

// The same call on the same values in f32.
template <class Call>
Call widened(const Call& call) {
  Call wide(call);
  wide.q = call.q.widened();
  wide.k = call.k.widened();
  wide.v = call.v.widened();
  wide.o = AttentionTensor(DType::f32, call.q.tokens, call.q.heads, call.q.head_dim);
  return wide;
}

// Scores far beyond what exp() of a float holds, growing and falling from block to block.
inline void grow_keys(AttentionTensor& k) {
  for (int64_t t = 0; t < k.tokens; ++t) {
    for (int d = 0; d < k.head_dim; ++d) {
      k.set(t, 0, d, k.at(t, 0, d) * float(1 + 30 * (t / 64 % 3)));
    }
  }
}

// Tokens begin .. end - 1 become NaN.
inline void poison(AttentionTensor& x, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int h = 0; h < x.heads; ++h) {
      for (int d = 0; d < x.head_dim; ++d) x.set(t, h, d, NAN);
    }
  }
}

}  // namespace seer::kernels
