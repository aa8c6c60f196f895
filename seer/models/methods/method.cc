#include "seer/models/methods/method.h"

#include <ATen/core/grad_mode.h>

#include "seer/base/allowed.h"
#include "seer/base/error.h"
#include "seer/torch/steps.h"

namespace seer::models {

// Each in a file of its own.
MethodFactory make_seer, make_gate, make_untrained, make_random, make_streaming, make_oracle,
    make_pooled, make_quest, make_minference_vs, make_flexprefill, make_xattention, make_duo;

namespace {

constexpr MethodInfo kMethods[] = {
    {.name = "seer",
     .make = make_seer,
     .trained = true,
     .gates = true,
     .lookups = true,
     .logits = true},
    {.name = "gate", .make = make_gate, .trained = true, .gates = true, .logits = true},
    {.name = "untrained", .make = make_untrained, .gates = true, .logits = true},
    {.name = "random", .make = make_random},
    {.name = "streaming", .make = make_streaming},
    {.name = "oracle", .make = make_oracle, .map = true, .logits = true},
    {.name = "pooled", .make = make_pooled, .gates = true, .logits = true},
    {.name = "quest", .make = make_quest, .gates = true},
    {.name = "minference_vs", .make = make_minference_vs, .whole = true},
    {.name = "flexprefill",
     .make = make_flexprefill,
     .gates = true,
     .whole = true,
     .own_rule = "top_p"},
    {.name = "xattention", .make = make_xattention, .logits = true},
    {.name = "duo", .make = make_duo},
};

}  // namespace

std::span<const MethodInfo> methods() {
  return kMethods;
}

const MethodInfo& method_named(const std::string& name) {
  std::string list;
  for (const MethodInfo& method : kMethods) {
    if (name == method.name) return method;
    list += std::string(", ") + method.name;
  }
  throw UsageError(message("no method \"", name, "\"; known: dense", list));
}

void check_rule(const std::string& method, const std::string& rule) {
  const MethodInfo& info = method_named(method);
  if (info.logits || info.own_rule == rule || !kernels::select_rule(rule).needs_logits) return;
  auto others = kernels::select_rule_names([](const auto& r) { return !r.needs_logits; });
  if (!info.own_rule.empty()) others.emplace_back(info.own_rule);
  throw UsageError(message("the rule ", rule, " needs scores that are logits, which ", method,
                           " has not: leave out one of the two, or choose ", listed(others)));
}

at::Tensor Method::scores(const AttentionInput&, const torch_ops::Ragged&) {
  return {};
}

torch_ops::BlockLists Method::choose(const AttentionInput&, const torch_ops::Ragged& ragged,
                                     const at::Tensor& scores,
                                     const torch_ops::Selection& selection) {
  return torch_ops::choose_blocks(scores, ragged, selection);
}

torch_ops::SparseOutput Method::attend(const AttentionInput& input, const torch_ops::Ragged& ragged,
                                       const torch_ops::Selection& selection) {
  const torch_ops::BlockLists lists = [&] {
    const at::NoGradGuard no_grad;  // the choice of blocks has no gradient
    torch_ops::enter_step(torch_ops::Step::score);
    return choose(input, ragged, scores(input, ragged), selection);
  }();
  const auto [o, lse] = torch_ops::block_sparse_attn(input.q, input.k, input.v, ragged, lists,
                                                     input.scale, /*causal=*/true);
  return {o, lse, lists};
}

}  // namespace seer::models
