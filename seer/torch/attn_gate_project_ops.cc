// seer::attn_gate_project and its gradient with respect to the weight.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kProjectOp = "seer::attn_gate_project";
constexpr const char* kProjectGradOp = "seer::attn_gate_project_grad";

constexpr ProjectNames kProjectNames = {kProjectOp, "x", "weight"};
constexpr int64_t kMostPoolings = 3;  // side by side in x

at::Tensor project(const at::Tensor& x, const OptionalTensor& weight, const OptionalTensor& cos,
                   const OptionalTensor& sin) {
  const ProjectStep step = prepare_project(kProjectNames, x, given(weight), given(cos), given(sin));
  step.run();
  return step.y;
}

at::Tensor project_grad_meta(const at::Tensor& dy, const at::Tensor& x, const OptionalTensor& cos,
                             const OptionalTensor& sin) {
  const char* op = kProjectGradOp;
  check_same_device(op, {{"x", x}, {"dy", dy}, {"cos", given(cos)}, {"sin", given(sin)}});
  check_vectors(op, {"x", x}, kMostPoolings);
  check_vectors(op, {"dy", dy});
  TORCH_SYM_CHECK(dy.sym_size(0).sym_eq(x.sym_size(0)), op, ": dy has ", dy.sym_size(0),
                  " rows, x has ", x.sym_size(0));
  check_shared_heads(op, "dy", dy.sym_size(1), "x", x.sym_size(1));
  check_rope_form(op, given(cos), given(sin), x.sym_size(0), dy.sym_size(2));
  return at::empty_symint({dy.sym_size(1), x.sym_size(2), dy.sym_size(2)}, x.options());
}

at::Tensor project_grad(const at::Tensor& dy_in, const at::Tensor& x_in, const OptionalTensor& cos,
                        const OptionalTensor& sin) {
  at::Tensor dweight = project_grad_meta(dy_in, x_in, cos, sin).zero_();
  const at::Tensor dy = dy_in.contiguous(), x = x_in.contiguous();
  const Rope rope(given(cos), given(sin));
  kernels::GateProjectGradParams p{};
  p.x = x.const_data_ptr<float>();
  p.cos = rope.cos_data();
  p.sin = rope.sin_data();
  p.dy = dy.const_data_ptr<float>();
  p.dweight = dweight.mutable_data_ptr<float>();
  p.num_blocks = x.size(0);
  p.num_in_heads = static_cast<int>(x.size(1));
  p.num_out_heads = static_cast<int>(dy.size(1));
  p.in_dim = static_cast<int>(x.size(2));
  p.out_dim = static_cast<int>(dy.size(2));
  p.rope_half = rope.half;
  const c10::DeviceGuard on_device(x.device());
  const Queue queue = queue_of(x);
  kernels::attn_gate_project_grad(p, queue.device, queue.stream);
  return dweight;
}

at::Tensor project_meta(const at::Tensor& x, const OptionalTensor& weight,
                        const OptionalTensor& cos, const OptionalTensor& sin) {
  return project_output(kProjectNames, x, given(weight), given(cos), given(sin));
}

at::Tensor call(const at::Tensor& x, const OptionalTensor& weight, const OptionalTensor& cos,
                const OptionalTensor& sin) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kProjectOp, "").typed<decltype(project)>();
  return op.call(x, weight, cos, sin);
}

at::Tensor call_grad(const at::Tensor& dy, const at::Tensor& x, const OptionalTensor& cos,
                     const OptionalTensor& sin) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kProjectGradOp, "")
                             .typed<decltype(project_grad)>();
  return op.call(dy, x, cos, sin);
}

struct Project : torch::autograd::Function<Project> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const OptionalTensor& cos,
                            const OptionalTensor& sin) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({x, given(cos), given(sin)});
    return call(x, weight, cos, sin);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor dweight =
        call_grad(grads[0], saved[0], optional(saved[1]), optional(saved[2]));
    return {at::Tensor(), dweight, at::Tensor(), at::Tensor()};
  }
};

at::Tensor project_autograd(const at::Tensor& x, const OptionalTensor& weight,
                            const OptionalTensor& cos, const OptionalTensor& sin) {
  refuse_gradient(kProjectOp, "detach it, as gates do not train their model",
                  {{"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  refuse_tangent(kProjectOp, {{"weight", given(weight)}});
  if (weight.has_value() && weight->defined() && weight->requires_grad()) {
    return Project::apply(x, *weight, cos, sin);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(x, weight, cos, sin);
}

at::Tensor project_grad_autograd(const at::Tensor& dy, const at::Tensor& x,
                                 const OptionalTensor& cos, const OptionalTensor& sin) {
  refuse_gradient(kProjectGradOp, "it can be differentiated once only",
                  {{"dy", dy}, {"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_grad(dy, x, cos, sin);
}

}  // namespace

at::Tensor project_output(const ProjectNames& names, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& cos, const at::Tensor& sin) {
  const char* op = names.op;
  const Named named{names.x, x}, of_weight{names.weight, weight};
  check_same_device(op, {named, of_weight, {"cos", cos}, {"sin", sin}});
  check_vectors(op, named, kMostPoolings);
  SymInt heads = x.sym_size(1), features = x.sym_size(2);
  if (weight.defined()) {
    check_weight(op, of_weight, named);
    check_shared_heads(op, names.weight, weight.sym_size(0), names.x, heads);
    heads = weight.sym_size(0), features = weight.sym_size(2);
  }
  check_rope_form(op, cos, sin, x.sym_size(0), features);
  return at::empty_symint({x.sym_size(0), heads, features}, x.options());
}

ProjectStep prepare_project(const ProjectNames& names, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& cos,
                            const at::Tensor& sin) {
  ProjectStep step;
  step.y = project_output(names, x, weight, cos, sin);
  const int64_t heads = step.y.size(1), out_dim = step.y.size(2);
  step.x = x.contiguous();
  if (weight.defined()) step.weight = weight.contiguous();
  step.rope = Rope(cos, sin);
  kernels::GateProjectParams& p = step.p;
  p.x = step.x.const_data_ptr<float>();
  p.weight = weight.defined() ? step.weight.const_data_ptr<float>() : nullptr;
  p.cos = step.rope.cos_data();
  p.sin = step.rope.sin_data();
  p.y = step.y.mutable_data_ptr<float>();
  p.num_blocks = x.size(0);
  p.num_in_heads = static_cast<int>(x.size(1));
  p.num_out_heads = static_cast<int>(heads);
  p.in_dim = static_cast<int>(x.size(2));
  p.out_dim = static_cast<int>(out_dim);
  p.rope_half = step.rope.half;
  return step;
}

void ProjectStep::run() const {
  const c10::DeviceGuard on_device(x.device());
  const Queue queue = queue_of(x);
  kernels::attn_gate_project(p, queue.device, queue.stream);
}

at::Tensor attn_gate_project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                             const at::Tensor& sin) {
  return call(x, optional(weight), optional(cos), optional(sin));
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("attn_gate_project", seer::torch_ops::project);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("attn_gate_project", seer::torch_ops::project);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("attn_gate_project", seer::torch_ops::project_meta);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("attn_gate_project", seer::torch_ops::project_autograd);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad_autograd);
}
