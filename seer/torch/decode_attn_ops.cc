// seer::decode_attn.

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "seer/kernels/decode_attn/decode_attn.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/packed.h"

namespace seer::torch_ops {
namespace {

// All fields but the results: those that decide which implementation takes a call among them.
kernels::DecodeAttnParams decode_params(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, int64_t seqs) {
  kernels::DecodeAttnParams p{};
  put_qkv(p, q, k, v);
  p.num_seqs = static_cast<int>(seqs);
  p.num_queries = seqs == 0 ? 1 : static_cast<int>(q.size(0) / seqs);
  return p;
}

struct DecodeAttn {
  static constexpr char kName[] = "seer::decode_attn";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor v, Tensor? cu_k, int window, float scale) "
      "-> (Tensor o, Tensor lse)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, OptionalIn, int64_t, double);

  const at::Tensor &q, &k, &v;
  const OptionalTensor& cu_k;
  int64_t window;
  double scale;

  Result form() const {
    const at::Tensor cu = given(cu_k);
    check_same_device(kName, {{"q", q}, {"k", k}, {"v", v}, {"cu_k", cu}});
    check_qkv(kName, q, k, v);
    check_scale(kName, scale);
    check_count(kName, "window", window, std::numeric_limits<int32_t>::max());
    if (cu.defined()) {
      check_prefix_forms(kName, {{"cu_k", cu}});
      const SymInt seqs = cu.sym_size(0) - 1, tokens = q.sym_size(0);
      TORCH_CHECK(seqs == 0 ? tokens == 0 : tokens % seqs == 0, kName, ": ", tokens,
                  " query tokens of ", seqs, " sequences, want as many of each");
    }
    return attention_results(q);
  }

  Result run() const {
    auto [o, lse] = form();
    if (q.size(0) == 0) return {o, lse};
    if (cu_k) check_prefix(kName, {"cu_k", *cu_k}, k.size(0));
    kernels::DecodeAttnParams p = decode_params(q, k, v, cu_k ? num_sequences(*cu_k) : 1);
    p.o = strided_out(o);
    p.lse = lse.mutable_data_ptr<float>();
    p.cu_k = cu_k ? int_data(*cu_k) : nullptr;
    p.window = static_cast<int>(window);
    p.scale = static_cast<float>(scale);
    const Queue queue(q);
    p.split = kernels::decode_attn_split(p, queue.device);
    const at::Tensor partials = at::empty({kernels::decode_attn_partials(p)}, lse.options());
    p.partials = partials.mutable_data_ptr<float>();
    kernels::decode_attn(p, queue.device, queue.stream);
    return {o, lse};
  }

  void refuse() const {
    refuse_gradient(kName, "it has no backward: call it under no_grad or detach q, k, v",
                    {{"q", q}, {"k", k}, {"v", v}});
  }
};

const RegisteredOp<DecodeAttn> kDecodeAttn;

}  // namespace

std::tuple<at::Tensor, at::Tensor> decode_attn(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v, const at::Tensor& cu_k,
                                               int64_t window, double scale) {
  return call<DecodeAttn>(q, k, v, optional(cu_k), window, scale);
}

bool decode_attn_takes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       int64_t num_seqs) {
  const kernels::DecodeAttnParams p = decode_params(q, k, v, num_seqs);
  const kernels::Device device = kernel_device(q);
  const auto impls = kernels::decode_attn_impls();
  return std::any_of(impls.begin(), impls.end(),
                     [&](const auto& impl) { return impl.why_not(p, device).empty(); });
}

}  // namespace seer::torch_ops
