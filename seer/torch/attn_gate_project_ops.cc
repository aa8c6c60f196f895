// seer::attn_gate_project and its gradient with respect to the weight.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
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

void check_weight(const ProjectNames& names, const at::Tensor& x, const at::Tensor& weight) {
  check_f32(names.op, {names.weight, weight}, 3);
  TORCH_CHECK(weight.size(1) == x.size(2), names.op, ": ", names.weight, " takes ", weight.size(1),
              " features, ", names.x, " has ", x.size(2));
  TORCH_CHECK(x.size(1) > 0 && weight.size(0) % x.size(1) == 0, names.op, ": ", names.weight,
              " has ", weight.size(0), " heads, want a multiple of the ", x.size(1), " of ",
              names.x);
}

at::Tensor project(const at::Tensor& x, const OptionalTensor& weight, const OptionalTensor& cos,
                   const OptionalTensor& sin) {
  const ProjectStep step = prepare_project({kProjectOp, "x", "weight"}, x, given(weight), cos, sin);
  step.run();
  return step.y;
}

at::Tensor project_grad(const at::Tensor& dy_in, const at::Tensor& x_in, const OptionalTensor& cos,
                        const OptionalTensor& sin) {
  check_f32(kProjectGradOp, {"dy", dy_in}, 3);
  check_f32(kProjectGradOp, {"x", x_in}, 3);
  TORCH_CHECK(dy_in.size(0) == x_in.size(0), kProjectGradOp, ": dy has ", dy_in.size(0),
              " rows, x has ", x_in.size(0));
  check_same_device(kProjectGradOp, {{"x", x_in}, {"dy", dy_in}});
  check_devices(kProjectGradOp, {"x", x_in}, {{"cos", cos}, {"sin", sin}});
  const at::Tensor dy = dy_in.contiguous(), x = x_in.contiguous();
  const Rope rope = check_rope(kProjectGradOp, cos, sin, x.size(0), dy.size(2));
  at::Tensor dweight = at::zeros({dy.size(1), x.size(2), dy.size(2)}, x.options());
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

at::Tensor project_shape(const at::Tensor& x, const OptionalTensor& weight, const OptionalTensor&,
                         const OptionalTensor&) {
  return project_meta(x, given(weight));
}

at::Tensor project_grad_meta(const at::Tensor& dy, const at::Tensor& x, const OptionalTensor&,
                             const OptionalTensor&) {
  return at::empty_symint({dy.sym_size(1), x.sym_size(2), dy.sym_size(2)}, x.options());
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
  if (weight.has_value() && weight->defined() && weight->requires_grad()) {
    return Project::apply(x, *weight, cos, sin);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(x, weight, cos, sin);
}

at::Tensor project_grad_autograd(const at::Tensor& dy, const at::Tensor& x,
                                 const OptionalTensor& cos, const OptionalTensor& sin) {
  refuse_gradient(kProjectGradOp, "it can be differentiated once only", {{"dy", dy}, {"x", x}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_grad(dy, x, cos, sin);
}

}  // namespace

ProjectStep prepare_project(const ProjectNames& names, const at::Tensor& x,
                            const at::Tensor& weight, const OptionalTensor& cos,
                            const OptionalTensor& sin) {
  const Named named{names.x, x};
  check_f32(names.op, named, 3);
  check_devices(names.op, named, {{names.weight, optional(weight)}, {"cos", cos}, {"sin", sin}});
  if (weight.defined()) check_weight(names, x, weight);
  const int64_t heads = weight.defined() ? weight.size(0) : x.size(1);
  const int64_t out_dim = weight.defined() ? weight.size(2) : x.size(2);
  ProjectStep step;
  step.x = x.contiguous();
  if (weight.defined()) step.weight = weight.contiguous();
  step.rope = check_rope(names.op, cos, sin, x.size(0), out_dim);
  step.y = at::empty({x.size(0), heads, out_dim}, x.options());
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

at::Tensor project_meta(const at::Tensor& x, const at::Tensor& weight) {
  return at::empty_symint({x.sym_size(0), weight.defined() ? weight.sym_size(0) : x.sym_size(1),
                           weight.defined() ? weight.sym_size(2) : x.sym_size(2)},
                          x.options());
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
  m.impl("attn_gate_project", seer::torch_ops::project_shape);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("attn_gate_project", seer::torch_ops::project_autograd);
  m.impl("attn_gate_project_grad", seer::torch_ops::project_grad_autograd);
}
