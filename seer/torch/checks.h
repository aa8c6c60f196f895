#pragma once
// Checks of arguments that the ops share. `op` is the op's name in the message.

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "seer/base/dtype.h"
#include "seer/kernels/impl.h"
#include "seer/kernels/strided.h"

namespace seer::torch_ops {

// A tensor with the name that it has in the op's schema.
struct Named {
  const char* name;
  const at::Tensor& tensor;
};

// [tokens, heads, features], features contiguous, f32, f16 or bf16.
void check_heads(const char* op, const Named& x);
// The same dtype for all of them.
void check_same_dtype(const char* op, std::initializer_list<Named> tensors);
// Those two for queries, keys and values: one head size, k and v alike.
void check_qkv(const char* op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
// The same device for all of them.
void check_same_device(const char* op, std::initializer_list<Named> tensors);
// f32 with `dim` axes.
void check_f32(const char* op, const Named& x, int64_t dim);
void check_block(const char* op, int64_t block, const char* name = "block");
// Tokens of a row where they may differ from those of a key block.
void check_block_q(const char* op, int64_t block_q);

// int32 [B + 1], contiguous, 0 first, never falling; B as in `like` where that is given. Returns
// the last entry, which must be `total` where that is not negative. Of a CUDA tensor only the form is
// checked and 0 returned: its entries are not read, so that nothing waits for the device.
int64_t check_prefix(const char* op, const Named& cu, int64_t total,
                     const at::Tensor* like = nullptr);
// That, and cu_blocks[b + 1] - cu_blocks[b] = ceil(len / block). Returns the longest difference.
int64_t check_block_prefix(const char* op, const Named& cu_blocks, const at::Tensor& cu,
                           int64_t block, int64_t total);

// Where an op runs: the device of a tensor, and its current CUDA stream (null on the CPU).
struct Queue {
  kernels::Device device;
  void* stream;
};
Queue queue_of(const at::Tensor& x);

// Under the Autograd key: fails when a gradient would have to flow through one of the tensors.
void refuse_gradient(const char* op, const char* advice, std::initializer_list<Named> tensors);

DType dtype_of(const at::Tensor& x);
kernels::StridedIn strided_in(const at::Tensor& x);
kernels::StridedOut strided_out(const at::Tensor& x);
const int32_t* int_data(const at::Tensor& x);
// Undefined where not given.
inline at::Tensor given(const std::optional<at::Tensor>& x) {
  return x.value_or(at::Tensor());
}
inline std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

using OptionalTensor = std::optional<at::Tensor>;
struct NamedOptional {
  const char* name;
  const OptionalTensor& tensor;
};
// Those that are given are where x is.
void check_devices(const char* op, const Named& x, std::initializer_list<NamedOptional> others);

// cos and sin, f32 [R, w / 2], contiguous; both undefined without RoPE.
struct Rope {
  at::Tensor cos, sin;
  int half = 0;
  const float* cos_data() const { return cos.defined() ? cos.const_data_ptr<float>() : nullptr; }
  const float* sin_data() const { return sin.defined() ? sin.const_data_ptr<float>() : nullptr; }
};
// Of `num_blocks` vectors of `features`.
Rope check_rope(const char* op, const OptionalTensor& cos, const OptionalTensor& sin,
                int64_t num_blocks, int64_t features);

}  // namespace seer::torch_ops
