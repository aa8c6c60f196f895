#include "seer/kernels/block_select/rules.h"

#include <cmath>
#include <string>

#include "seer/base/error.h"

namespace seer::kernels {

const SelectRuleInfo& select_rule(std::string_view name) {
  std::string list;
  for (const SelectRuleInfo& rule : kSelectRuleTable) {
    if (name == rule.name) return rule;
    list += std::string(list.empty() ? "" : ", ") + rule.name;
  }
  fail("block_select: unknown rule \"", name, "\", want one of ", list);
}

BestOfRow best_of_row(SelectRule rule, double strength, int block) {
  if (rule == SelectRule::nz_ratio) return {1 - std::sqrt(1 - strength), 0};
  return {0, std::max<int64_t>(1, static_cast<int64_t>(std::floor(strength / block)))};
}

}  // namespace seer::kernels
