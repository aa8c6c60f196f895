#include "seer/models/list_mask.h"

#include <ATen/ATen.h>

namespace seer::models {

at::Tensor mask_of(const torch_ops::BlockLists& lists, int64_t head, int64_t num_blocks) {
  const at::Tensor begin = lists.begin[head], count = lists.count[head];
  const at::Tensor at = at::arange(num_blocks, begin.options().dtype(at::kLong));
  const at::Tensor places = begin.unsqueeze(-1).add(at).clamp(0, lists.list.numel() - 1);
  const at::Tensor blocks = lists.list.index({places}).to(at::kLong);
  // What is not listed goes into a column of its own.
  const at::Tensor to = blocks.masked_fill(at.ge(count.unsqueeze(-1)), num_blocks);
  const at::Tensor mask = at::zeros({to.size(0), num_blocks + 1}, to.options().dtype(at::kBool));
  return mask.scatter_(1, to, true).narrow(1, 0, num_blocks);
}

}  // namespace seer::models
