#include "seer/base/error.h"
#include "seer/train/ranks_backend.h"

#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace seer::train {

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int rank, int size) {
#ifdef USE_C10D_NCCL
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size,
                                                     c10d::ProcessGroupNCCL::Options::create());
#else
  static_cast<void>(store);
  fail("rank ", rank, " of ", size, ": this build has no NCCL; configure with -DSEER_CUDA=ON");
#endif
}

}  // namespace seer::train
