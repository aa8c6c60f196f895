#include "seer/models/methods/method.h"

#include "seer/base/error.h"

namespace seer::models {

// Each in a file of its own.
MethodFactory make_seer, make_untrained, make_random, make_streaming, make_oracle;

namespace {

constexpr MethodInfo kMethods[] = {
    {.name = "seer", .make = make_seer, .trained = true, .gates = true, .logits = true},
    {.name = "untrained", .make = make_untrained, .gates = true, .logits = true},
    {.name = "random", .make = make_random},
    {.name = "streaming", .make = make_streaming},
    {.name = "oracle", .make = make_oracle, .map = true, .logits = true},
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
  if (method_named(method).logits || !kernels::select_rule(rule).needs_logits) return;
  throw UsageError(message("the rule ", rule, " needs scores that are logits, which ", method,
                           " has not: leave out one of the two, or choose nz_ratio or row_budget"));
}

}  // namespace seer::models
