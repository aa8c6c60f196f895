#pragma once
// From the type and head size of a call to an instance of its kernel. For .cu files.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

using bf16 = __nv_bfloat16;
using f16 = __half;

// run<Element, head size>() of the call's element and of that of kHeadDims which is its head size.
template <int... kHeadDims, class Run>
void run_instance(const PackedAttentionParams& p, const Run& run) {
  const auto with_head_dim = [&]<class Element>() {
    (void)((p.head_dim == kHeadDims && (run.template operator()<Element, kHeadDims>(), true)) ||
           ...);
  };
  if (p.dtype == DType::bf16) {
    with_head_dim.template operator()<bf16>();
  } else {
    with_head_dim.template operator()<f16>();
  }
}

}  // namespace seer::kernels
