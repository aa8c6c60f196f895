#include "seer/models/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <numeric>

#include "seer/base/error.h"
#include "seer/torch/ops.h"

namespace seer::models {
namespace {

// Entries of the largest mask: pieces of queries get shorter as the keys get longer.
constexpr int64_t kMaskEntries = int64_t{1} << 24;
constexpr int64_t kLongestPiece = 1024, kShortestPiece = 16;

// Queries of a sequence that are a decode step rather than a chunk of a prompt.
constexpr int64_t kDecodeQueries = 8;

// Whether decode_attn takes the call: a few queries of each sequence, and no gradient.
bool is_decode_step(const AttentionInput& input) {
  const auto& lens = input.sequences.q_lens;
  if (lens.empty() || lens[0] > kDecodeQueries) return false;
  if (std::any_of(lens.begin(), lens.end(), [&](int64_t len) { return len != lens[0]; })) {
    return false;
  }
  const bool needs_gradient =
      at::GradMode::is_enabled() &&
      (input.q.requires_grad() || input.k.requires_grad() || input.v.requires_grad());
  return !needs_gradient &&
         torch_ops::decode_attn_takes(input.q, input.k, input.v, static_cast<int64_t>(lens.size()));
}

at::Tensor decode_step(const AttentionInput& input, int64_t window) {
  at::Tensor cu_k;
  const auto& lens = input.sequences.k_lens;
  if (lens.size() > 1) {
    cu_k =
        torch_ops::make_ragged(input.sequences.q_lens, lens, /*block=*/64, input.q.device()).cu_k;
  }
  return std::get<0>(torch_ops::decode_attn(input.q, input.k, input.v, cu_k, window, input.scale));
}

// q [B, Hq, t, D], k, v [B, Hk, s, D]
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const std::optional<at::Tensor>& mask, bool causal, double scale) {
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale,
                                          /*enable_gqa=*/q.size(1) != k.size(1));
}

// [1, H, t, D] of the tokens [begin, end) of [T, H, D]
at::Tensor heads_first(const at::Tensor& x, int64_t begin, int64_t end) {
  return x.slice(0, begin, end).transpose(0, 1).unsqueeze(0);
}

// One sequence whose queries are its last tokens: where they are not all of them, or a window hides keys, a
// piece of queries at a time, as torch's own causal flag aligns the first query with the first key.
at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                      int64_t window) {
  const int64_t q_len = q.size(0), k_len = k.size(0), offset = k_len - q_len;
  if (offset == 0 && (window == 0 || k_len <= window)) {
    const at::Tensor o = attend(heads_first(q, 0, q_len), heads_first(k, 0, k_len),
                                heads_first(v, 0, k_len), std::nullopt, true, scale);
    return o.squeeze(0).transpose(0, 1);
  }
  const int64_t widest = window > 0 ? std::min(k_len, window + kLongestPiece) : k_len;
  const int64_t piece = std::clamp(kMaskEntries / widest, kShortestPiece, kLongestPiece);
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < q_len; begin += piece) {
    const int64_t end = std::min(q_len, begin + piece);
    const int64_t first = window > 0 ? std::max<int64_t>(0, offset + begin - window + 1) : 0;
    const int64_t last = offset + end;  // one past the last key that any of these queries sees
    std::optional<at::Tensor> mask;
    const bool one_query_sees_all = end - begin == 1;
    if (!one_query_sees_all) {
      const auto options = q.options().dtype(at::kLong).requires_grad(false);
      const at::Tensor at_query = at::arange(offset + begin, last, options).unsqueeze(1);
      const at::Tensor at_key = at::arange(first, last, options);
      mask = at_key.le(at_query);
      if (window > 0) mask = mask->logical_and(at_key.gt(at_query.sub(window)));
    }
    parts.push_back(attend(heads_first(q, begin, end), heads_first(k, first, last),
                           heads_first(v, first, last), mask, false, scale));
  }
  const at::Tensor o = parts.size() == 1 ? parts[0] : at::cat(parts, 2);
  return o.squeeze(0).transpose(0, 1);
}

// All sequences have `length` tokens, none cached, no window: one batch.
at::Tensor attend_batch(const AttentionInput& input, int64_t length) {
  const auto split = [&](const at::Tensor& x) {
    return x.view({-1, length, x.size(1), x.size(2)}).transpose(1, 2);
  };
  const at::Tensor o =
      attend(split(input.q), split(input.k), split(input.v), std::nullopt, true, input.scale);
  return o.transpose(1, 2).reshape(input.q.sizes());
}

}  // namespace

int64_t Sequences::num_tokens() const {
  return std::accumulate(q_lens.begin(), q_lens.end(), int64_t{0});
}

bool Sequences::equal_lengths() const {
  return q_lens == k_lens && std::all_of(q_lens.begin(), q_lens.end(),
                                         [&](int64_t length) { return length == q_lens[0]; });
}

int64_t Sequences::longest() const {
  const auto longest = std::max_element(k_lens.begin(), k_lens.end());
  return std::max(prompt_len, longest == k_lens.end() ? 0 : *longest);
}

bool window_cuts(const AttentionInput& input) {
  return input.window > 0 && input.sequences.longest() > input.window;
}

at::Tensor dense_attention(const AttentionInput& input) {
  const Sequences& sequences = input.sequences;
  const int64_t window = window_cuts(input) ? input.window : 0;
  if (input.q.size(0) == 0) return at::empty_like(input.q);
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    SEER_CHECK(sequences.q_lens[b] <= sequences.k_lens[b], "sequence ", b, " has ",
               sequences.q_lens[b], " queries and ", sequences.k_lens[b],
               " keys; the queries must be the last of its tokens");
  }
  if (is_decode_step(input)) return decode_step(input, window);
  if (sequences.equal_lengths() && window == 0) return attend_batch(input, sequences.q_lens[0]);

  std::vector<at::Tensor> parts;
  int64_t q_begin = 0, k_begin = 0;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t q_len = sequences.q_lens[b], k_len = sequences.k_lens[b];
    const at::Tensor q = input.q.narrow(0, q_begin, q_len), k = input.k.narrow(0, k_begin, k_len),
                     v = input.v.narrow(0, k_begin, k_len);
    q_begin += q_len;
    k_begin += k_len;
    if (q_len > 0) parts.push_back(attend_one(q, k, v, input.scale, window));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

}  // namespace seer::models
