#include "seer/models/list_mask.h"

#include <ATen/ATen.h>

namespace seer::models {

at::Tensor mask_of(const torch_ops::BlockLists& lists, int64_t num_blocks) {
  const auto options = lists.begin.options();
  const at::Tensor at = at::arange(num_blocks, options);
  const at::Tensor places = lists.begin.unsqueeze(-1).add(at).clamp(0, lists.list.numel() - 1);
  const at::Tensor blocks = lists.list.index({places}).to(at::kLong);
  const at::Tensor is_listed = at.lt(lists.count.unsqueeze(-1));
  // What is not listed goes into a column of its own.
  const at::Tensor to = at::where(is_listed, blocks, at::full({}, num_blocks, options));
  const at::Tensor mask =
      at::zeros({to.size(0), to.size(1), num_blocks + 1}, options.dtype(at::kBool));
  return mask.scatter(2, to, true).narrow(2, 0, num_blocks);
}

}  // namespace seer::models
