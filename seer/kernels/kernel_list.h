#pragma once
// What runs where: every operation's implementations and, for a device, why some do not.

#include <string>
#include <vector>

#include "seer/base/dtype.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

struct KernelStatus {
  const char* op;
  const char* implementation;
  std::string why_not;  // empty: it runs
  std::string slower;   // what the call loses on it; empty: nothing much
};

// For calls of this type, head size and block size whose tensors are contiguous; those of lookup heads with `lookup_rank` features a
// token, or, where that is 0, as most have them: 32, and blocks of 64. In the order of the ops' own tables: the first that runs is the
// one that is used.
std::vector<KernelStatus> kernel_list(const Device& device, DType dtype, int head_dim, int block,
                                      int lookup_rank = 0);

// Why attention to models of this head size does not run on the device: an op without a kernel for it,
// and the reasons of its kernels. Empty: it runs.
std::string why_not_head_dim(const Device& device, int head_dim);

}  // namespace seer::kernels
