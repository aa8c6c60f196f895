// seer::decode_attn.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <limits>

#include "seer/kernels/decode_attn/decode_attn.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

using DecodeOutput = std::tuple<at::Tensor, at::Tensor>;

constexpr const char* kDecodeOp = "seer::decode_attn";

// Form alone: also of tensors without contents.
DecodeOutput decode_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const OptionalTensor& cu_k, int64_t window, double scale) {
  const at::Tensor cu = given(cu_k);
  check_same_device(kDecodeOp, {{"q", q}, {"k", k}, {"v", v}, {"cu_k", cu}});
  check_qkv(kDecodeOp, q, k, v);
  check_scale(kDecodeOp, scale);
  check_count(kDecodeOp, "window", window, std::numeric_limits<int32_t>::max());
  if (cu.defined()) {
    check_prefix_forms(kDecodeOp, {{"cu_k", cu}});
    const SymInt seqs = cu.sym_size(0) - 1, tokens = q.sym_size(0);
    TORCH_CHECK(seqs == 0 ? tokens == 0 : tokens % seqs == 0, kDecodeOp, ": ", tokens,
                " query tokens of ", seqs, " sequences, want as many of each");
  }
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(1), q.sym_size(0)}, q.options().dtype(at::kFloat))};
}

// Of the fields that decide which implementation takes a call, and all others but the results.
kernels::DecodeAttnParams decode_params(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, int64_t seqs) {
  kernels::DecodeAttnParams p{};
  p.q = strided_in(q);
  p.k = strided_in(k);
  p.v = strided_in(v);
  p.num_seqs = static_cast<int>(seqs);
  p.num_queries = seqs == 0 ? 1 : static_cast<int>(q.size(0) / seqs);
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(k.size(1));
  p.head_dim = static_cast<int>(q.size(2));
  p.total_k = k.size(0);
  p.dtype = dtype_of(q);
  return p;
}

DecodeOutput decode(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const OptionalTensor& cu_k, int64_t window, double scale) {
  auto [o, lse] = decode_meta(q, k, v, cu_k, window, scale);
  if (q.size(0) == 0) return {o, lse};
  if (cu_k) check_prefix(kDecodeOp, {"cu_k", *cu_k}, k.size(0));
  kernels::DecodeAttnParams p = decode_params(q, k, v, cu_k ? num_sequences(*cu_k) : 1);
  p.o = strided_out(o);
  p.lse = lse.mutable_data_ptr<float>();
  p.cu_k = cu_k ? int_data(*cu_k) : nullptr;
  p.window = static_cast<int>(window);
  p.scale = static_cast<float>(scale);
  const c10::DeviceGuard on_device(q.device());
  const Queue queue = queue_of(q);
  p.split = kernels::decode_attn_split(p, queue.device);
  const at::Tensor partials = at::empty({kernels::decode_attn_partials(p)}, lse.options());
  p.partials = partials.mutable_data_ptr<float>();
  kernels::decode_attn(p, queue.device, queue.stream);
  return {o, lse};
}

DecodeOutput call_decode(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const OptionalTensor& cu_k, int64_t window, double scale) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kDecodeOp, "").typed<decltype(decode)>();
  return op.call(q, k, v, cu_k, window, scale);
}

DecodeOutput decode_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const OptionalTensor& cu_k, int64_t window, double scale) {
  refuse_gradient(kDecodeOp, "it has no backward: call it under no_grad or detach q, k, v",
                  {{"q", q}, {"k", k}, {"v", v}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_decode(q, k, v, cu_k, window, scale);
}

}  // namespace

DecodeOutput decode_attn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const at::Tensor& cu_k, int64_t window, double scale) {
  return call_decode(q, k, v, optional(cu_k), window, scale);
}

bool decode_attn_takes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       int64_t num_seqs) {
  const kernels::DecodeAttnParams p = decode_params(q, k, v, num_seqs);
  const kernels::Device device = queue_of(q).device;
  for (const auto& impl : kernels::decode_attn_impls()) {
    if (impl.why_not(p, device).empty()) return true;
  }
  return false;
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("decode_attn", seer::torch_ops::decode);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("decode_attn", seer::torch_ops::decode);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("decode_attn", seer::torch_ops::decode_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("decode_attn", seer::torch_ops::decode_autograd);
}
