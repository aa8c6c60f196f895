// Prefix sums of packed sequences from their lengths on the host.

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

// Prefix sums of ceil(len / unit).
at::Tensor prefix_sums(const std::vector<int64_t>& lens, int64_t unit, const at::Device& device) {
  at::Tensor sums = at::empty({static_cast<int64_t>(lens.size()) + 1}, at::kInt);
  int32_t* out = sums.mutable_data_ptr<int32_t>();
  int64_t sum = 0;
  out[0] = 0;
  for (size_t b = 0; b < lens.size(); ++b) {
    TORCH_CHECK(lens[b] >= 0, "make_ragged: sequence ", b, " has length ", lens[b],
                ", want 0 or more");
    sum += (lens[b] + unit - 1) / unit;
    TORCH_CHECK(sum <= std::numeric_limits<int32_t>::max(), "make_ragged: ", sum,
                " tokens in one pack, want at most 2147483647; give fewer sequences");
    out[b + 1] = static_cast<int32_t>(sum);
  }
  return sums.to(device);
}

}  // namespace

Ragged make_ragged(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& k_lens,
                   int block, const at::Device& device) {
  check_block("make_ragged", block);
  TORCH_CHECK(q_lens.size() == k_lens.size(), "make_ragged: ", q_lens.size(), " query lengths and ",
              k_lens.size(), " key lengths, want as many");
  Ragged out;
  out.cu_q = prefix_sums(q_lens, 1, device);
  out.cu_k = prefix_sums(k_lens, 1, device);
  out.cu_rows = prefix_sums(q_lens, block, device);
  out.cu_blocks = prefix_sums(k_lens, block, device);
  for (const int64_t len : q_lens) out.num_rows += (len + block - 1) / block;
  for (const int64_t len : k_lens) {
    const int64_t blocks = (len + block - 1) / block;
    out.total_blocks += blocks;
    out.num_blocks = std::max(out.num_blocks, blocks);
  }
  out.block = block;
  return out;
}

}  // namespace seer::torch_ops
