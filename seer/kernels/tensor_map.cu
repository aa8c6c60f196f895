#include "seer/kernels/tensor_map.h"

#include "seer/kernels/cuda_check.h"

namespace seer::kernels {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Through the runtime: nothing has to be linked to the driver, so programs start without one.
Encode encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  SEER_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                   cudaEnableDefault, &found));
  SEER_CHECK(found == cudaDriverEntryPointSuccess,
             "the CUDA driver is too old for tensor maps; update it to one of CUDA 12 or later");
  return reinterpret_cast<Encode>(function);
}

CUtensorMapDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case DType::f16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case DType::bf16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case DType::f64: return CU_TENSOR_MAP_DATA_TYPE_FLOAT64;
  }
  fail("no tensor map of such elements");
}

}  // namespace

CUtensorMap tensor_map(const StridedIn& x, int64_t tokens, int heads, int head_dim, DType dtype,
                       int rows, int row_bytes) {
  static const Encode encode = encode_function();
  // The stride of an axis of one entry has no meaning, but the driver looks at it.
  const int64_t head_stride = heads > 1 ? x.head_stride : head_dim;
  const int64_t token_stride = tokens > 1 ? x.token_stride : int64_t{heads} * head_dim;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(heads),
                               static_cast<cuuint64_t>(tokens)};
  const auto size = static_cast<int64_t>(size_of(dtype));
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(head_stride * size),
                                 static_cast<cuuint64_t>(token_stride * size)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(row_bytes / size), 1,
                             static_cast<cuuint32_t>(rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, type_of(dtype), 3, const_cast<void*>(x.data), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             row_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  SEER_CHECK(status == CUDA_SUCCESS, "no tensor map for [", tokens, ", ", heads, ", ", head_dim,
             "] with strides ", token_stride, ", ", head_stride, ": CUDA error ",
             static_cast<int>(status));
  return map;
}

}  // namespace seer::kernels
