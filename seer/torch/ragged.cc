// Prefix sums of packed sequences from their lengths on the host.

#include <ATen/ops/empty.h>

#include <algorithm>

#include "seer/kernels/size_limits.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

// Prefix sums of ceil(len / unit), into `out` [lens + 1].
void prefix_sums(const std::vector<int64_t>& lens, int64_t unit, int32_t* out) {
  int64_t sum = 0;
  out[0] = 0;
  for (size_t b = 0; b < lens.size(); ++b) {
    TORCH_CHECK(lens[b] >= 0, "make_ragged: sequence ", b, " has length ", lens[b],
                ", want 0 or more");
    const bool fits = lens[b] <= kernels::kMostTokens;
    if (fits) sum += (lens[b] + unit - 1) / unit;
    TORCH_CHECK(fits && sum <= kernels::kMostTokens, "make_ragged: with sequence ", b, " of ",
                lens[b], " tokens a pack has more than ", kernels::kMostTokens,
                ", which is the most; give fewer or shorter sequences");
    out[b + 1] = static_cast<int32_t>(sum);
  }
}

}  // namespace

int Ragged::one_block(const char* op) const {
  TORCH_CHECK(block_q == block, op, ": rows of ", block_q, " tokens and key blocks of ", block,
              ", want one size for both; only pooled_attn takes two");
  return block;
}

Ragged make_ragged(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& k_lens,
                   int block, const at::Device& device) {
  check_block("make_ragged", block);
  return make_ragged(q_lens, k_lens, block, block, device);
}

Ragged make_ragged(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& k_lens,
                   int block_q, int block_k, const at::Device& device) {
  check_block_q("make_ragged", block_q);
  check_block("make_ragged", block_k, "block_k");
  TORCH_CHECK(q_lens.size() == k_lens.size(), "make_ragged: ", q_lens.size(), " query lengths and ",
              k_lens.size(), " key lengths, want as many");
  Ragged out;
  // One copy to the device, which does not wait for it: CUDA has read pageable memory when the call
  // returns.
  const int64_t entries = static_cast<int64_t>(q_lens.size()) + 1;
  at::Tensor sums = at::empty({4, entries}, at::kInt);
  int32_t* to = sums.mutable_data_ptr<int32_t>();
  prefix_sums(q_lens, 1, to);
  prefix_sums(k_lens, 1, to + entries);
  prefix_sums(q_lens, block_q, to + 2 * entries);
  prefix_sums(k_lens, block_k, to + 3 * entries);
  sums = sums.to(device, /*non_blocking=*/true);
  out.cu_q = sums.select(0, 0);
  out.cu_k = sums.select(0, 1);
  out.cu_rows = sums.select(0, 2);
  out.cu_blocks = sums.select(0, 3);
  for (const int64_t len : q_lens) out.num_rows += (len + block_q - 1) / block_q;
  for (const int64_t len : k_lens) {
    const int64_t blocks = (len + block_k - 1) / block_k;
    out.total_blocks += blocks;
    out.num_blocks = std::max(out.num_blocks, blocks);
  }
  out.block = block_k;
  out.block_q = block_q;
  return out;
}

}  // namespace seer::torch_ops
