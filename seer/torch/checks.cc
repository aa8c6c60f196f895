#include "seer/torch/checks.h"

#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace seer::torch_ops {

void check_heads(const char* op, const Named& x) {
  TORCH_CHECK(x.tensor.dim() == 3, op, ": ", x.name, " has ", x.tensor.dim(),
              " axes, want [tokens, heads, features]");
  TORCH_CHECK(x.tensor.size(2) <= 1 || x.tensor.stride(2) == 1, op, ": the features of ", x.name,
              " have stride ", x.tensor.stride(2), ", want 1; call contiguous()");
  const auto type = x.tensor.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kHalf || type == at::kBFloat16, op, ": ", x.name,
              " is ", type, ", want float32, float16 or bfloat16");
}

void check_same_dtype(const char* op, std::initializer_list<Named> tensors) {
  const Named& first = *tensors.begin();
  for (const Named& x : tensors) {
    TORCH_CHECK(x.tensor.scalar_type() == first.tensor.scalar_type(), op, ": ", x.name, " is ",
                x.tensor.scalar_type(), ", want ", first.tensor.scalar_type(), " as ", first.name);
  }
}

void check_qkv(const char* op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  for (const Named& x : {Named{"q", q}, {"k", k}, {"v", v}}) check_heads(op, x);
  check_same_dtype(op, {{"q", q}, {"k", k}, {"v", v}});
  TORCH_CHECK(k.sizes() == v.sizes() && k.size(2) == q.size(2), op, ": q is ", q.sizes(), ", k ",
              k.sizes(), ", v ", v.sizes(), ", want one head size, k and v alike");
}

void check_same_device(const char* op, std::initializer_list<Named> tensors) {
  const Named& first = *tensors.begin();
  for (const Named& x : tensors) {
    TORCH_CHECK(x.tensor.device() == first.tensor.device(), op, ": ", x.name, " is on ",
                x.tensor.device(), ", want ", first.tensor.device(), " as ", first.name);
  }
}

Queue queue_of(const at::Tensor& x) {
  if (!x.is_cuda()) return {{}, nullptr};
  const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
  return {kernels::cuda_device(x.get_device()), guard.getStream(x.device()).native_handle()};
}

void check_f32(const char* op, const Named& x, int64_t dim) {
  TORCH_CHECK(x.tensor.dim() == dim, op, ": ", x.name, " has ", x.tensor.dim(), " axes, want ",
              dim);
  TORCH_CHECK(x.tensor.scalar_type() == at::kFloat, op, ": ", x.name, " is ",
              x.tensor.scalar_type(), ", want float32");
}

void check_block(const char* op, int64_t block, const char* name) {
  TORCH_CHECK(block >= 16 && block <= 128 && block % 16 == 0, op, ": ", name, " is ", block,
              ", want a multiple of 16 from 16 to 128");
}

void check_block_q(const char* op, int64_t block_q) {
  TORCH_CHECK(block_q >= 1 && block_q <= 128, op, ": block_q is ", block_q,
              ", want 1 (a row for each token) to 128");
}

int64_t check_prefix(const char* op, const Named& cu, int64_t total, const at::Tensor* like) {
  const at::Tensor& x = cu.tensor;
  TORCH_CHECK(x.dim() == 1 && x.size(0) >= 1 && x.scalar_type() == at::kInt && x.is_contiguous(),
              op, ": ", cu.name, " must be int32 [sequences + 1], contiguous");
  TORCH_CHECK(!like || x.size(0) == like->size(0), op, ": ", cu.name, " has ", x.size(0),
              " entries, want ", like ? like->size(0) : 0, " as the other prefix sums");
  if (!x.is_cpu()) return 0;
  const int32_t* at = int_data(x);
  TORCH_CHECK(at[0] == 0, op, ": ", cu.name, " begins with ", at[0], ", want 0");
  for (int64_t b = 1; b < x.size(0); ++b) {
    TORCH_CHECK(at[b] >= at[b - 1], op, ": ", cu.name, " falls from ", at[b - 1], " to ", at[b],
                " at entry ", b);
  }
  const int64_t last = at[x.size(0) - 1];
  TORCH_CHECK(total < 0 || last == total, op, ": ", cu.name, " ends with ", last, ", want ", total);
  return last;
}

int64_t check_block_prefix(const char* op, const Named& cu_blocks, const at::Tensor& cu,
                           int64_t block, int64_t total) {
  check_prefix(op, cu_blocks, total, &cu);
  if (!cu.is_cpu()) return 0;
  const int32_t *blocks = int_data(cu_blocks.tensor), *tokens = int_data(cu);
  int64_t longest = 0;
  for (int64_t b = 1; b < cu.size(0); ++b) {
    const int64_t found = blocks[b] - blocks[b - 1];
    const int64_t want = (tokens[b] - tokens[b - 1] + block - 1) / block;
    TORCH_CHECK(found == want, op, ": ", cu_blocks.name, " gives sequence ", b - 1, " ", found,
                " blocks, want ", want);
    longest = std::max(longest, found);
  }
  return longest;
}

void refuse_gradient(const char* op, const char* advice, std::initializer_list<Named> tensors) {
  for (const Named& x : tensors) {
    TORCH_CHECK(!c10::GradMode::is_enabled() || !x.tensor.defined() || !x.tensor.requires_grad(),
                op, ": no gradient with respect to ", x.name, "; ", advice);
  }
}

DType dtype_of(const at::Tensor& x) {
  if (x.scalar_type() == at::kHalf) return DType::f16;
  return x.scalar_type() == at::kBFloat16 ? DType::bf16 : DType::f32;
}

kernels::StridedIn strided_in(const at::Tensor& x) {
  return {x.const_data_ptr(), x.stride(0), x.stride(1)};
}

kernels::StridedOut strided_out(const at::Tensor& x) {
  return {x.mutable_data_ptr(), x.stride(0), x.stride(1)};
}

const int32_t* int_data(const at::Tensor& x) {
  return x.const_data_ptr<int32_t>();
}

void check_devices(const char* op, const Named& x, std::initializer_list<NamedOptional> others) {
  for (const NamedOptional& other : others) {
    const at::Tensor tensor = given(other.tensor);
    if (tensor.defined()) check_same_device(op, {x, {other.name, tensor}});
  }
}

Rope check_rope(const char* op, const OptionalTensor& cos, const OptionalTensor& sin,
                int64_t num_blocks, int64_t features) {
  Rope rope{given(cos), given(sin)};
  TORCH_CHECK(rope.cos.defined() == rope.sin.defined(), op, ": give cos and sin together");
  if (!rope.cos.defined()) return rope;
  check_f32(op, {"cos", rope.cos}, 2);
  check_f32(op, {"sin", rope.sin}, 2);
  TORCH_CHECK(rope.cos.sizes() == rope.sin.sizes(), op, ": cos is ", rope.cos.sizes(), " and sin ",
              rope.sin.sizes(), ", want the same");
  TORCH_CHECK(rope.cos.size(0) == num_blocks, op, ": cos has ", rope.cos.size(0), " rows, want ",
              num_blocks, ", one for each block");
  TORCH_CHECK(2 * rope.cos.size(1) <= features, op, ": ", 2 * rope.cos.size(1),
              " features turn, want at most ", features);
  rope.half = static_cast<int>(rope.cos.size(1));
  rope.cos = rope.cos.contiguous();
  rope.sin = rope.sin.contiguous();
  return rope;
}

}  // namespace seer::torch_ops
