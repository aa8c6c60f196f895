// "seer" and "untrained": a gate's scores.

#include <ATen/core/grad_mode.h>

#include "seer/base/error.h"
#include "seer/models/methods/method.h"
#include "seer/torch/steps.h"

namespace seer::models {
namespace {

// The method keeps `gates`, which share their tensors with those that they are copied from.
Method by_gates(const Gates& gates, int block) {
  SEER_CHECK(gates.config().block_size == block, "the gates were made for blocks of ",
             gates.config().block_size, " tokens, but blocks of ", block, " are asked for");
  Method method;
  method.scores = [gates](Method::Input input, Method::Ragged ragged) {
    return gates.scores(input, ragged);
  };
  method.attend = [gates](Method::Input input, Method::Ragged ragged, Method::Selection selection) {
    torch_ops::enter_step(torch_ops::Step::score);
    const GateVectors v = [&] {
      const at::NoGradGuard no_grad;
      return gates.vectors(input, ragged);
    }();
    return torch_ops::sparse_attention(input.q, input.k, input.v, v.q, v.k, ragged, selection,
                                       input.scale, /*causal=*/true);
  };
  return method;
}

}  // namespace

Method make_seer(const MethodInputs& in) {
  SEER_CHECK(in.gates != nullptr, "the method seer needs a folder of gates");
  return by_gates(*in.gates, in.settings.block);
}

// Gates as they are created: of the form of those given, or of the one asked for.
Method make_untrained(const MethodInputs& in) {
  io::GateConfig config = in.gates != nullptr ? in.gates->config() : in.settings.form;
  config.block_size = in.settings.block;
  return by_gates(Gates::create(config, in.model, in.settings.seed), config.block_size);
}

}  // namespace seer::models
