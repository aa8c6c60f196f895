#pragma once
// Checks of arguments that the ops share. `op` is the op's name in the message.
//
// An op has one function for the form of its arguments (axes, sizes, types, strides, devices), which its
// implementations on CPU, CUDA and Meta all call: sizes may therefore be symbolic. The contents of
// prefix sums and lists are looked at on the CPU alone: on a GPU that would wait for the device.

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/SymInt.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "seer/base/dtype.h"
#include "seer/kernels/impl.h"
#include "seer/kernels/strided.h"

namespace seer::torch_ops {

using c10::SymInt;
using OptionalTensor = std::optional<at::Tensor>;

// Undefined where not given.
inline at::Tensor given(const OptionalTensor& x) {
  return x.value_or(at::Tensor());
}
inline OptionalTensor optional(const at::Tensor& x) {
  return x.defined() ? OptionalTensor(x) : std::nullopt;
}

// A tensor with the name that it has in the op's schema; undefined where it is not given.
struct Named {
  const char* name;
  const at::Tensor& tensor;
};

// --- Form ---

// The same device for all that are given.
void check_same_device(const char* op, std::initializer_list<Named> tensors);
// From 0 to `most`: what an op's parameters hold as 32-bit numbers.
void check_count(const char* op, const char* what, const SymInt& count, int64_t most);
// [tokens, heads, features], features contiguous, f32, f16 or bf16; f64 where the op's reference takes it.
void check_heads(const char* op, const Named& x, bool takes_f64 = false);
// That for queries, keys and, where they are given, values: one head size, k and v alike, heads that share
// evenly.
void check_qkv(const char* op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               bool takes_f64 = false);
// Scores or a map, f32 [heads, rows, blocks].
void check_scores(const char* op, const Named& x);
// Of blocks or rows, f32 [blocks, heads, features]; `poolings` of a head's features side by side.
void check_vectors(const char* op, const Named& x, int64_t poolings = 1);
// f32 [heads, features of x, features].
void check_weight(const char* op, const Named& weight, const Named& x);
// `heads` of one tensor are a multiple of those of another.
void check_shared_heads(const char* op, const char* heads_name, const SymInt& heads,
                        const char* shared_name, const SymInt& shared);
void check_block(const char* op, int64_t block, const char* name = "block");
// Tokens of a row where they may differ from those of a key block.
void check_block_q(const char* op, int64_t block_q);
// What scores are multiplied with.
void check_scale(const char* op, double scale);
// int32 [B + 1], contiguous; B as in the first of them.
void check_prefix_forms(const char* op, std::initializer_list<Named> prefixes);
// cos and sin, f32 [blocks, w / 2], of vectors of `features`; both or none of them given.
void check_rope_form(const char* op, const at::Tensor& cos, const at::Tensor& sin,
                     const SymInt& num_blocks, const SymInt& features);

// --- Contents ---

// 0 first, never falling. Returns the last entry, which must be `total` where that is not negative;
// 0 where the tensor is not on the CPU.
int64_t check_prefix(const char* op, const Named& cu, int64_t total);
// That, and cu_blocks[b + 1] - cu_blocks[b] = ceil(len / block). Returns the longest difference.
int64_t check_block_prefix(const char* op, const Named& cu_blocks, const at::Tensor& cu,
                           int64_t block, int64_t total);
// No sequence has more key blocks than `what` (the scores, the map) has columns.
void check_longest(const char* op, const at::Tensor& cu_k, int64_t block, const char* what,
                   int64_t num_blocks);

// --- Derivatives: under the Autograd key ---

// Fails when a gradient would have to flow through one of the tensors, backward or forward.
void refuse_gradient(const char* op, const char* advice, std::initializer_list<Named> tensors);
inline constexpr char kDetachForGate[] = "detach it, as gates do not train their model";
inline constexpr char kOnceOnly[] = "it can be differentiated once only";
// Fails when one of them has a tangent of forward-mode differentiation, which no op passes on.
void refuse_tangent(const char* op, std::initializer_list<Named> tensors);

// --- What a kernel reads ---

kernels::Device kernel_device(const at::Tensor& x);
// Where an op runs: the device of a tensor, the current one while this lives, and its current CUDA stream
// (null on the CPU).
struct Queue {
  explicit Queue(const at::Tensor& x);
  c10::DeviceGuard guard;
  kernels::Device device;
  void* stream = nullptr;
};

DType dtype_of(const at::Tensor& x);
kernels::StridedIn strided_in(const at::Tensor& x);
kernels::StridedOut strided_out(const at::Tensor& x);
const int32_t* int_data(const at::Tensor& x);
// B of prefix sums.
inline int num_sequences(const at::Tensor& cu) {
  return static_cast<int>(cu.size(0) - 1);
}

// cos and sin, contiguous; both undefined without RoPE.
struct Rope {
  Rope() = default;
  Rope(const at::Tensor& cos, const at::Tensor& sin);
  at::Tensor cos, sin;
  int half = 0;
  template <class Params>
  void put_into(Params& p) const {
    p.cos = cos.defined() ? cos.const_data_ptr<float>() : nullptr;
    p.sin = sin.defined() ? sin.const_data_ptr<float>() : nullptr;
    p.rope_half = half;
  }
};

}  // namespace seer::torch_ops
