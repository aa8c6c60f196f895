#include "seer/torch/checks.h"

#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>

#include "seer/kernels/size_limits.h"

namespace seer::torch_ops {
namespace {

using kernels::kMostFeatures;
using kernels::kMostHeads;
using kernels::kMostTokenFeatures;
using kernels::kMostTokens;

// `first` at least of what `x` has.
void check_size(const char* op, const Named& x, const char* what, const SymInt& size, int64_t first,
                int64_t most) {
  TORCH_SYM_CHECK(size.sym_ge(first), op, ": ", x.name, " has ", size, " ", what, ", want ", first,
                  " at least");
  TORCH_SYM_CHECK(size.sym_le(most), op, ": ", x.name, " has ", size, " ", what, ", want ", most,
                  " at most");
}

void check_axes(const char* op, const Named& x, int64_t dim, const char* axes) {
  TORCH_CHECK(x.tensor.dim() == dim, op, ": ", x.name, " has ", x.tensor.dim(), " axes, want ",
              axes);
}

void check_f32(const char* op, const Named& x, int64_t dim, const char* axes) {
  check_axes(op, x, dim, axes);
  TORCH_CHECK(x.tensor.scalar_type() == at::kFloat, op, ": ", x.name, " is ",
              x.tensor.scalar_type(), ", want float32");
}

// [tokens or blocks, heads, features], within what kernels compute with.
void check_vector_sizes(const char* op, const Named& x, int64_t poolings) {
  const SymInt heads = x.tensor.sym_size(1), features = x.tensor.sym_size(2);
  check_size(op, x, "rows", x.tensor.sym_size(0), 0, kMostTokens);
  check_size(op, x, "heads", heads, 1, kMostHeads);
  check_size(op, x, "features", features, 1, poolings * kMostFeatures);
  check_size(op, x, "features in all heads", heads * features, 1, poolings * kMostTokenFeatures);
}

}  // namespace

void check_same_device(const char* op, std::initializer_list<Named> tensors) {
  const Named& first = *tensors.begin();
  for (const Named& x : tensors) {
    TORCH_CHECK(!x.tensor.defined() || x.tensor.device() == first.tensor.device(), op, ": ", x.name,
                " is on ", x.tensor.device(), ", want ", first.tensor.device(), " as ", first.name);
  }
}

void check_count(const char* op, const char* what, const SymInt& count, int64_t most) {
  TORCH_SYM_CHECK(count.sym_ge(0), op, ": ", what, " is ", count, ", want 0 to ", most);
  TORCH_SYM_CHECK(count.sym_le(most), op, ": ", what, " is ", count, ", want 0 to ", most);
}

void check_heads(const char* op, const Named& x, bool takes_f64) {
  check_axes(op, x, 3, "[tokens, heads, features]");
  TORCH_CHECK(x.tensor.sym_size(2) <= 1 || x.tensor.sym_stride(2) == 1, op, ": the features of ",
              x.name, " have stride ", x.tensor.sym_stride(2), ", want 1; call contiguous()");
  const auto type = x.tensor.scalar_type();
  const bool is_taken = type == at::kFloat || type == at::kHalf || type == at::kBFloat16 ||
                        (takes_f64 && type == at::kDouble);
  TORCH_CHECK(is_taken, op, ": ", x.name, " is ", type, ", want float32, float16 or bfloat16",
              takes_f64 ? ", or float64 on the CPU" : "");
  check_vector_sizes(op, x, 1);
}

void check_shared_heads(const char* op, const char* heads_name, const SymInt& heads,
                        const char* shared_name, const SymInt& shared) {
  TORCH_SYM_CHECK((heads % shared).sym_eq(0), op, ": ", heads_name, " has ", heads,
                  " heads, want a multiple of the ", shared, " of ", shared_name);
}

void check_qkv(const char* op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               bool takes_f64) {
  for (const Named& x : {Named{"q", q}, {"k", k}, {"v", v}}) {
    if (!x.tensor.defined()) continue;
    check_heads(op, x, takes_f64);
    TORCH_CHECK(x.tensor.scalar_type() == q.scalar_type(), op, ": ", x.name, " is ",
                x.tensor.scalar_type(), ", want ", q.scalar_type(), " as q");
  }
  TORCH_CHECK(k.sym_size(2) == q.sym_size(2), op, ": q is ", q.sym_sizes(), ", k ", k.sym_sizes(),
              ", want one head size");
  TORCH_CHECK(!v.defined() || k.sym_sizes() == v.sym_sizes(), op, ": k is ", k.sym_sizes(), ", v ",
              v.sym_sizes(), ", want k and v alike");
  check_shared_heads(op, "q", q.sym_size(1), "k", k.sym_size(1));
}

void check_scores(const char* op, const Named& x) {
  check_f32(op, x, 3, "[heads, rows, blocks]");
  check_size(op, x, "heads", x.tensor.sym_size(0), 1, kMostHeads);
  check_size(op, x, "rows", x.tensor.sym_size(1), 0, kMostTokens);
  check_size(op, x, "blocks", x.tensor.sym_size(2), 0, kernels::kMostBlocks);
}

void check_vectors(const char* op, const Named& x, int64_t poolings) {
  check_f32(op, x, 3, "[blocks, heads, features]");
  check_vector_sizes(op, x, poolings);
}

void check_weight(const char* op, const Named& weight, const Named& x) {
  const at::Tensor& w = weight.tensor;
  check_f32(op, weight, 3, "[heads, features in, features out]");
  check_size(op, weight, "heads", w.sym_size(0), 1, kMostHeads);
  check_size(op, weight, "features out", w.sym_size(2), 1, kMostFeatures);
  check_size(op, weight, "features out in all heads", w.sym_size(0) * w.sym_size(2), 1,
             kMostTokenFeatures);
  TORCH_SYM_CHECK(w.sym_size(1).sym_eq(x.tensor.sym_size(2)), op, ": ", weight.name, " takes ",
                  w.sym_size(1), " features, ", x.name, " has ", x.tensor.sym_size(2));
}

void check_block(const char* op, int64_t block, const char* name) {
  TORCH_CHECK(block >= 16 && block <= 128 && block % 16 == 0, op, ": ", name, " is ", block,
              ", want a multiple of 16 from 16 to 128");
}

void check_block_q(const char* op, int64_t block_q) {
  TORCH_CHECK(block_q >= 1 && block_q <= 128, op, ": block_q is ", block_q,
              ", want 1 (a row for each token) to 128");
}

void check_scale(const char* op, double scale) {
  TORCH_CHECK(scale > 0 && std::isfinite(scale), op, ": scale is ", scale,
              ", want a positive number");
}

void check_prefix_forms(const char* op, std::initializer_list<Named> prefixes) {
  const Named& first = *prefixes.begin();
  for (const Named& cu : prefixes) {
    const at::Tensor& x = cu.tensor;
    TORCH_CHECK(x.dim() == 1 && x.scalar_type() == at::kInt && x.is_contiguous(), op, ": ", cu.name,
                " must be int32 [sequences + 1], contiguous");
    check_size(op, cu, "entries", x.sym_size(0), 1, kMostTokens);
    TORCH_SYM_CHECK(x.sym_size(0).sym_eq(first.tensor.sym_size(0)), op, ": ", cu.name, " has ",
                    x.sym_size(0), " entries, want ", first.tensor.sym_size(0), " as ", first.name);
  }
}

void check_rope_form(const char* op, const at::Tensor& cos, const at::Tensor& sin,
                     const SymInt& num_blocks, const SymInt& features) {
  TORCH_CHECK(cos.defined() == sin.defined(), op, ": give cos and sin together");
  if (!cos.defined()) return;
  for (const Named& x : {Named{"cos", cos}, {"sin", sin}}) {
    check_f32(op, x, 2, "[blocks, half of the features that rotate]");
  }
  TORCH_CHECK(cos.sym_sizes() == sin.sym_sizes(), op, ": cos is ", cos.sym_sizes(), " and sin ",
              sin.sym_sizes(), ", want the same");
  TORCH_SYM_CHECK(cos.sym_size(0).sym_eq(num_blocks), op, ": cos has ", cos.sym_size(0),
                  " rows, want ", num_blocks, ", one for each block");
  TORCH_SYM_CHECK((cos.sym_size(1) * 2).sym_le(features), op, ": ", cos.sym_size(1) * 2,
                  " features rotate, want at most ", features);
}

int64_t check_prefix(const char* op, const Named& cu, int64_t total) {
  const at::Tensor& x = cu.tensor;
  if (!x.is_cpu()) return 0;
  const int32_t* at = int_data(x);
  TORCH_CHECK(at[0] == 0, op, ": ", cu.name, " begins with ", at[0], ", want 0");
  for (int64_t b = 1; b < x.size(0); ++b) {
    TORCH_CHECK(at[b] >= at[b - 1], op, ": ", cu.name, " falls from ", at[b - 1], " to ", at[b],
                " at entry ", b);
  }
  const int64_t last = at[x.size(0) - 1];
  TORCH_CHECK(total < 0 || last == total, op, ": ", cu.name, " ends with ", last, ", want ", total);
  TORCH_CHECK(last <= kMostTokens, op, ": ", cu.name, " ends with ", last, ", want at most ",
              kMostTokens);
  return last;
}

int64_t check_block_prefix(const char* op, const Named& cu_blocks, const at::Tensor& cu,
                           int64_t block, int64_t total) {
  check_prefix(op, cu_blocks, total);
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

void check_longest(const char* op, const at::Tensor& cu_k, int64_t block, const char* what,
                   int64_t num_blocks) {
  if (!cu_k.is_cpu()) return;
  const int32_t* keys = int_data(cu_k);
  for (int64_t b = 1; b < cu_k.size(0); ++b) {
    const int64_t len = keys[b] - keys[b - 1];
    TORCH_CHECK((len + block - 1) / block <= num_blocks, op, ": sequence ", b - 1, " has ", len,
                " keys, ", what, " ", num_blocks, " blocks of ", block);
  }
}

void refuse_gradient(const char* op, const char* advice, std::initializer_list<Named> tensors) {
  refuse_tangent(op, tensors);
  for (const Named& x : tensors) {
    TORCH_CHECK(!c10::GradMode::is_enabled() || !x.tensor.defined() || !x.tensor.requires_grad(),
                op, ": no gradient with respect to ", x.name, "; ", advice);
  }
}

void refuse_tangent(const char* op, std::initializer_list<Named> tensors) {
  if (!c10::AutogradState::get_tls_state().get_fw_grad_mode()) return;
  for (const Named& x : tensors) {
    TORCH_CHECK(!x.tensor.defined() || !x.tensor._fw_grad(/*level=*/0).defined(), op,
                ": no forward-mode derivative with respect to ", x.name,
                "; detach it, or differentiate backward where the op has a gradient");
  }
}

kernels::Device kernel_device(const at::Tensor& x) {
  return x.is_cuda() ? kernels::cuda_device(x.get_device()) : kernels::Device{};
}

Queue::Queue(const at::Tensor& x) : guard(x.device()), device(kernel_device(x)) {
  if (!x.is_cuda()) return;
  stream = c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(x.device()).native_handle();
}

DType dtype_of(const at::Tensor& x) {
  if (x.scalar_type() == at::kHalf) return DType::f16;
  if (x.scalar_type() == at::kDouble) return DType::f64;
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

Rope::Rope(const at::Tensor& cos_in, const at::Tensor& sin_in) {
  if (!cos_in.defined()) return;
  cos = cos_in.contiguous();
  sin = sin_in.contiguous();
  half = static_cast<int>(cos.size(1));
}

}  // namespace seer::torch_ops
