#pragma once
// Calls of lookup_grad for tests: named odd cases, and the reference that results are compared with.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attention/testing/attention_call.h"
#include "seer/kernels/lookup_grad/reference.h"
#include "seer/kernels/testing/closeness.h"

namespace seer::kernels {

struct LookupGradCase {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int heads = 2, rank = 32, block = 64;
  bool causal = true;
  int padding = 0;     // elements between rows
  int nan_query = -1;  // token whose last head is NaN
  friend void PrintTo(const LookupGradCase& c, std::ostream* out) { *out << c.name; }
};

inline const std::vector<LookupGradCase> kLookupGradCases = {
    {.name = "one_token", .q_lens = {1}, .k_lens = {1}},
    {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .heads = 3},
    {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}, .rank = 64},
    {.name = "empty_sequences", .q_lens = {70, 0, 33, 20}, .k_lens = {70, 40, 33, 0}},
    {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}, .rank = 64},
    {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}},
    {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}},
    {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
    {.name = "strided", .q_lens = {130}, .k_lens = {190}, .padding = 24},
    {.name = "many_blocks", .q_lens = {70}, .k_lens = {3000}, .heads = 1},
    {.name = "rank_16", .q_lens = {150}, .k_lens = {210}, .rank = 16},
    {.name = "block_16", .q_lens = {90}, .k_lens = {150}, .block = 16},
    {.name = "block_128", .q_lens = {190}, .k_lens = {250}, .block = 128},
    // More than an axis of a GPU's grid has.
    {.name = "many_sequences",
     .q_lens = std::vector<int>(65'600, 1),
     .k_lens = std::vector<int>(65'600, 1),
     .heads = 1},
    {.name = "nan_query", .q_lens = {70, 130}, .k_lens = {70, 200}, .nan_query = 100},
};

// lse is not that of the scores: any numbers do, if exp() of what is above them is not large.
struct LookupGradCall : AttentionCall {
  LookupGradCase shape;
  std::vector<int32_t> cu_rows, largest;
  int64_t num_blocks = 0;
  std::vector<float> dscores, sums, dq, dk;

  explicit LookupGradCall(const LookupGradCase& c, DType dtype)
      : AttentionCall(c.q_lens, c.k_lens, c.heads, c.heads, c.rank, c.padding, dtype),
        shape(c),
        cu_rows(prefix_sums(c.q_lens, c.block)) {
    for (const int n : c.k_lens) {
      num_blocks = std::max<int64_t>(num_blocks, (n + c.block - 1) / c.block);
    }
    Random random(1);
    fill_normal(random);
    for (float& x : lse) x = static_cast<float>(2 + random.normal());
    dscores.resize(static_cast<size_t>(c.heads * cu_rows.back() * num_blocks));
    for (float& x : dscores) x = static_cast<float>(random.normal());
    largest.assign(dscores.size(), 7);
    sums.assign(lse.size(), NAN);
    dq.assign(static_cast<size_t>(q.tokens * c.heads * c.rank), NAN);
    dk.assign(static_cast<size_t>(k.tokens * c.heads * c.rank), NAN);
    for (int d = 0; c.nan_query >= 0 && d < c.rank; ++d) q.set(c.nan_query, c.heads - 1, d, NAN);
  }

  LookupGradParams params() {
    LookupGradParams p{packed(shape.causal)};
    p.v = {}, p.o = {};
    p.dscores = dscores.data();
    p.dq = dq.data();
    p.dk = dk.data();
    p.cu_rows = cu_rows.data();
    p.largest = largest.data();
    p.sums = sums.data();
    p.num_rows = cu_rows.back();
    p.num_blocks = num_blocks;
    p.block = shape.block;
    return p;
  }
};

// Empty, or how a call differs from the reference.
inline std::string wrong_gradient(const LookupGradCall& call) {
  LookupGradCall want(call);
  lookup_grad_reference(want.params());
  constexpr Limits kLimits = {1e-5, 1e-5, 1e-9};
  const auto compare = [&](const char* name, const std::vector<float>& x,
                           const std::vector<float>& y) {
    const std::string wrong = far_from(x.data(), y.data(), y.size(), kLimits);
    return wrong.empty() ? "" : std::string(name) + ": " + wrong;
  };
  return compare("dq", call.dq, want.dq) + compare("dk", call.dk, want.dk);
}

}  // namespace seer::kernels
