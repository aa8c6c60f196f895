// seer::lookup_project: what lookup heads read of q and k.

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include "seer/kernels/lookup_project/lookup_project.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

at::ScalarType type_of_products(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? at::kFloat : at::kHalf;
}

// One of the two products, by the library.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& heads) {
  if (x.is_cpu()) {
    const at::Tensor own = x.to(at::kFloat), which = heads.contiguous();
    const at::Tensor out = at::empty({x.size(0), weight.size(0), weight.size(2)}, own.options());
    const auto* const head = which.const_data_ptr<int64_t>();
    for (int64_t l = 0; l < weight.size(0); ++l) {
      at::Tensor place = out.select(1, l);
      at::mm_out(place, own.select(1, head[l]), weight[l]);
    }
    return out.to(type_of_products(x));
  }
  const at::Tensor of_heads = x.index_select(1, heads).transpose(0, 1);
  const at::Tensor own = weight.to(x.scalar_type());
  const at::Tensor y =
      x.scalar_type() == at::kFloat ? at::bmm(of_heads, own) : at::bmm(of_heads, own, at::kFloat);
  return y.transpose(0, 1).to(type_of_products(x), /*non_blocking=*/false, /*copy=*/false,
                              at::MemoryFormat::Contiguous);
}

struct LookupProject {
  static constexpr char kName[] = "seer::lookup_project";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor weight_q, Tensor weight_k, Tensor heads, Tensor kv_heads) "
      "-> (Tensor lookup_q, Tensor lookup_k)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn);

  const at::Tensor &q, &k, &weight_q, &weight_k, &heads, &kv_heads;

  Result form() const {
    check_same_device(kName, {{"q", q},
                              {"k", k},
                              {"weight_q", weight_q},
                              {"weight_k", weight_k},
                              {"heads", heads},
                              {"kv_heads", kv_heads}});
    check_qkv(kName, q, k, {});
    check_weight(kName, {"weight_q", weight_q}, {"q", q});
    check_weight(kName, {"weight_k", weight_k}, {"k", k});
    TORCH_CHECK(weight_q.sym_sizes() == weight_k.sym_sizes(), kName, ": weight_k is ",
                weight_k.sym_sizes(), ", want ", weight_q.sym_sizes(), " as weight_q");
    for (const auto& [name, x] : {Named{"heads", heads}, Named{"kv_heads", kv_heads}}) {
      TORCH_CHECK(
          x.scalar_type() == at::kLong && x.dim() == 1 && x.sym_size(0) == weight_q.sym_size(0),
          kName, ": ", name, " is ", x.scalar_type(), " ", x.sym_sizes(), ", want int64 [",
          weight_q.sym_size(0), "], one for each matrix of weight_q");
    }
    const auto like = [&](const at::Tensor& x) {
      return at::empty_symint({x.sym_size(0), weight_q.sym_size(0), weight_q.sym_size(2)},
                              x.options().dtype(type_of_products(x)));
    };
    return {like(q), like(k)};
  }

  Result run() const {
    auto [out_q, out_k] = form();
    if (q.is_cpu()) {
      check_range("heads", heads, q.size(1));
      check_range("kv_heads", kv_heads, k.size(1));
    }
    const at::Tensor own_q = weight_q.contiguous(), own_k = weight_k.contiguous();
    const at::Tensor which = heads.contiguous(), kv_which = kv_heads.contiguous();
    kernels::LookupProjectParams p{};
    p.sides[0] = side(q, which, own_q, out_q);
    p.sides[1] = side(k, kv_which, own_k, out_k);
    p.dtype = dtype_of(q);
    p.num_heads = static_cast<int>(weight_q.size(0));
    p.head_dim = static_cast<int>(weight_q.size(1));
    p.rank = static_cast<int>(weight_q.size(2));
    const Queue queue(q);
    if (!kernels::takes_lookup_project(p, queue.device)) {
      return {product(q, own_q, which), product(k, own_k, kv_which)};
    }
    kernels::lookup_project(p, queue.device, queue.stream);
    return {out_q, out_k};
  }

  void refuse() const {
    constexpr char kAdvice[] = "detach it, and make products that learn by torch.matmul";
    refuse_gradient(kName, kAdvice,
                    {{"q", q}, {"k", k}, {"weight_q", weight_q}, {"weight_k", weight_k}});
  }

 private:
  static void check_range(const char* name, const at::Tensor& heads, int64_t num_heads) {
    const at::Tensor own = heads.contiguous();
    const auto* const head = own.const_data_ptr<int64_t>();
    for (int64_t l = 0; l < own.numel(); ++l) {
      TORCH_CHECK(head[l] >= 0 && head[l] < num_heads, kName, ": ", name, "[", l, "] is ", head[l],
                  ", want 0 to ", num_heads - 1);
    }
  }
  static kernels::LookupProjectParams::Side side(const at::Tensor& x, const at::Tensor& heads,
                                                 const at::Tensor& weight, const at::Tensor& y) {
    return {strided_in(x), heads.const_data_ptr<int64_t>(), weight.const_data_ptr<float>(),
            y.mutable_data_ptr(), x.size(0)};
  }
};

const RegisteredOp<LookupProject> kLookupProject;

}  // namespace

std::tuple<at::Tensor, at::Tensor> lookup_project(const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& weight_q,
                                                  const at::Tensor& weight_k,
                                                  const at::Tensor& heads,
                                                  const at::Tensor& kv_heads) {
  return call<LookupProject>(q, k, weight_q, weight_k, heads, kv_heads);
}

}  // namespace seer::torch_ops
