#include <cstdlib>

#include "seer/base/error.h"
#include "seer/train/ranks/nccl.h"

#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace seer::train {

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int rank, int size,
                                               std::chrono::milliseconds patience) {
#ifdef USE_C10D_NCCL
  // c10d's watchdog would end this process with its stack where a connection breaks, before the
  // heartbeat can name who is gone. torchrun sets it to 1.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 1);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = patience;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
#else
  static_cast<void>(store);
  static_cast<void>(patience);
  fail("rank ", rank, " of ", size, ": this build has no NCCL; configure with -DSEER_CUDA=ON");
#endif
}

}  // namespace seer::train
