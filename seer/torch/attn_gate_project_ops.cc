// seer::attn_gate_project and its gradient with respect to the weight.

#include <ATen/ops/empty.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr int64_t kMostPoolings = 3;  // side by side in x

struct GateProjectGrad {
  static constexpr char kName[] = "seer::attn_gate_project_grad";
  static constexpr char kSchema[] =
      "(Tensor dy, Tensor x, Tensor? cos, Tensor? sin) -> Tensor dweight";
  using Signature = at::Tensor(TensorIn, TensorIn, OptionalIn, OptionalIn);

  const at::Tensor &dy, &x;
  const OptionalTensor &cos, &sin;

  at::Tensor form() const {
    check_same_device(kName, {{"x", x}, {"dy", dy}, {"cos", given(cos)}, {"sin", given(sin)}});
    check_vectors(kName, {"x", x}, kMostPoolings);
    check_vectors(kName, {"dy", dy});
    TORCH_SYM_CHECK(dy.sym_size(0).sym_eq(x.sym_size(0)), kName, ": dy has ", dy.sym_size(0),
                    " rows, x has ", x.sym_size(0));
    check_shared_heads(kName, "dy", dy.sym_size(1), "x", x.sym_size(1));
    check_rope_form(kName, given(cos), given(sin), x.sym_size(0), dy.sym_size(2));
    return at::empty_symint({dy.sym_size(1), x.sym_size(2), dy.sym_size(2)}, x.options());
  }

  at::Tensor run() const {
    const at::Tensor dweight = form().zero_(), own_dy = dy.contiguous(), own_x = x.contiguous();
    const Rope rope(given(cos), given(sin));
    kernels::GateProjectGradParams p{};
    p.x = own_x.const_data_ptr<float>();
    rope.put_into(p);
    p.dy = own_dy.const_data_ptr<float>();
    p.dweight = dweight.mutable_data_ptr<float>();
    p.num_blocks = x.size(0);
    p.num_in_heads = static_cast<int>(x.size(1));
    p.num_out_heads = static_cast<int>(dy.size(1));
    p.in_dim = static_cast<int>(x.size(2));
    p.out_dim = static_cast<int>(dy.size(2));
    const Queue queue(x);
    kernels::attn_gate_project_grad(p, queue.device, queue.stream);
    return dweight;
  }

  void refuse() const {
    refuse_gradient(kName, kOnceOnly,
                    {{"dy", dy}, {"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  }
};

}  // namespace

at::Tensor GateProject::form() const {
  const char* op = names.op;
  const at::Tensor w = given(weight), c = given(cos), s = given(sin);
  const Named named{names.x, x}, of_weight{names.weight, w};
  check_same_device(op, {named, of_weight, {"cos", c}, {"sin", s}});
  check_vectors(op, named, kMostPoolings);
  SymInt heads = x.sym_size(1), features = x.sym_size(2);
  if (w.defined()) {
    check_weight(op, of_weight, named);
    check_shared_heads(op, names.weight, w.sym_size(0), names.x, heads);
    heads = w.sym_size(0), features = w.sym_size(2);
  }
  check_rope_form(op, c, s, x.sym_size(0), features);
  return at::empty_symint({x.sym_size(0), heads, features}, x.options());
}

PreparedProjection GateProject::prepare() const {
  PreparedProjection out;
  out.y = form();
  out.x = x.contiguous();
  if (given(weight).defined()) out.weight = weight->contiguous();
  out.rope = Rope(given(cos), given(sin));
  kernels::GateProjectParams& p = out.p;
  p.x = out.x.const_data_ptr<float>();
  p.weight = out.weight.defined() ? out.weight.const_data_ptr<float>() : nullptr;
  out.rope.put_into(p);
  p.y = out.y.mutable_data_ptr<float>();
  p.num_blocks = x.size(0);
  p.num_in_heads = static_cast<int>(x.size(1));
  p.num_out_heads = static_cast<int>(out.y.size(1));
  p.in_dim = static_cast<int>(x.size(2));
  p.out_dim = static_cast<int>(out.y.size(2));
  return out;
}

void PreparedProjection::run() const {
  const Queue queue(x);
  kernels::attn_gate_project(p, queue.device, queue.stream);
}

at::Tensor GateProject::run() const {
  const PreparedProjection projection = prepare();
  projection.run();
  return projection.y;
}

void GateProject::refuse() const {
  refuse_gradient(kName, kDetachForGate, {{"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  refuse_tangent(kName, {{"weight", given(weight)}});
}

at::Tensor GateProject::forward(Context& context, const Below<at::Tensor>& below) const {
  context.save_for_backward({x, given(cos), given(sin)});
  return below();
}

Tensors GateProject::backward(Context& context, const Tensors& grads) {
  const auto saved = context.get_saved_variables();
  return {{}, call<GateProjectGrad>(grads[0], saved[0], optional(saved[1]), optional(saved[2]))};
}

at::Tensor attn_gate_project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                             const at::Tensor& sin) {
  return call<GateProject>(x, optional(weight), optional(cos), optional(sin));
}

static const RegisteredOp<GateProject> kGateProject;
static const RegisteredOp<GateProjectGrad> kGateProjectGrad;

}  // namespace seer::torch_ops
