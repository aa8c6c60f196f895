#include "seer/train/tasks/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of logits at a time. CUDA: a few hundred MB of a usual vocabulary, so that kernels stay
// large; CPU: what stays near the caches.
int64_t default_rows(const at::Tensor& head) {
  const int64_t elements = head.is_cuda() ? int64_t{1} << 27 : int64_t{1} << 22;
  return std::max<int64_t>(elements / head.size(0), 16);
}

// x head^T in f32, whatever the inputs are.
at::Tensor logits_of(const at::Tensor& x, const at::Tensor& head) {
  if (x.scalar_type() == at::kFloat) return at::mm(x, head.t());
  // Only CUDA has products whose result is wider than their inputs.
  return x.is_cuda() ? at::mm(x, head.t(), at::kFloat) : at::mm(x, head.t()).to(at::kFloat);
}

class ChunkedCrossEntropy : public torch::autograd::Function<ChunkedCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& head, const at::Tensor& targets, int64_t rows) {
    RECORD_USER_SCOPE("seer::cross_entropy");
    const int64_t total = hidden.size(0);
    const at::Tensor dhidden = at::empty_like(hidden);
    const auto f32 = hidden.options().dtype(at::kFloat);
    const at::Tensor dhead = at::zeros(head.sizes(), f32), loss = at::zeros({}, f32);
    const bool is_narrow = hidden.scalar_type() != at::kFloat;
    for (int64_t begin = 0; begin < total; begin += rows) {
      const int64_t count = std::min(rows, total - begin);
      const at::Tensor x = hidden.narrow(0, begin, count);
      const at::Tensor target = targets.narrow(0, begin, count).unsqueeze(1);
      const at::Tensor log_p = at::_log_softmax(logits_of(x, head), 1, /*half_to_float=*/false);
      const at::Tensor at_target = log_p.gather(1, target);
      loss.sub_(at_target.sum());
      // d loss / d logits = softmax - one hot, in the dtype of the products that follow.
      at::Tensor dlogits = is_narrow ? at::empty(log_p.sizes(), x.options()) : log_p;
      at::exp_out(dlogits, log_p);
      dlogits.scatter_(1, target, at_target.exp().sub_(1).to(dlogits.scalar_type()));
      at::Tensor dx = dhidden.narrow(0, begin, count);
      at::mm_out(dx, dlogits, head);
      dhead.add_(at::mm(dlogits.t(), x));
    }
    const double mean = 1.0 / static_cast<double>(total);
    context->save_for_backward({dhidden.mul_(mean), dhead.mul_(mean).to(head.scalar_type())});
    return loss.mul_(mean);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    RECORD_USER_SCOPE("seer::cross_entropy");
    const auto saved = context->get_saved_variables();
    const at::Tensor& grad = grads[0];
    return {saved[0] * grad.to(saved[0].scalar_type()), saved[1] * grad.to(saved[1].scalar_type()),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& head,
                                 const at::Tensor& targets, int64_t rows) {
  SEER_CHECK(hidden.dim() == 2 && head.dim() == 2 && hidden.size(1) == head.size(1), "hidden ",
             hidden.sizes(), " and head ", head.sizes(), " do not fit");
  SEER_CHECK(hidden.scalar_type() == head.scalar_type(), "hidden is ", hidden.scalar_type(),
             ", head ", head.scalar_type());
  SEER_CHECK(hidden.size(0) > 0 && targets.dim() == 1 && targets.size(0) == hidden.size(0),
             "targets ", targets.sizes(), ", want [", hidden.size(0), "]");
  return ChunkedCrossEntropy::apply(hidden, head, targets, rows > 0 ? rows : default_rows(head));
}

}  // namespace seer::train
