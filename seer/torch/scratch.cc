#include "seer/torch/scratch.h"

#include <ATen/ops/zeros.h>

#include <map>
#include <mutex>
#include <utility>

namespace seer::torch_ops {

at::Tensor zero_counter(const at::Tensor& x, const Queue& queue) {
  const auto make = [&] { return at::zeros({1}, x.options().dtype(at::kInt)); };
  if (kernels::is_capturing(queue.stream)) return make();
  // Never destroyed: at the end of the process the driver may be gone before it.
  static auto* const counters = new std::map<std::pair<int, void*>, at::Tensor>;
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  at::Tensor& counter = (*counters)[{x.get_device(), queue.stream}];
  if (!counter.defined()) counter = make();
  return counter;
}

}  // namespace seer::torch_ops
