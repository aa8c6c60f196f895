#include "seer/kernels/block_select/rules.h"

#include <cmath>

#include "seer/base/allowed.h"
#include "seer/base/error.h"

namespace seer::kernels {

const SelectRuleInfo& select_rule(std::string_view name) {
  for (const SelectRuleInfo& rule : kSelectRuleTable) {
    if (name == rule.name) return rule;
  }
  fail("block_select: unknown rule \"", name, "\", want ", listed(select_rule_names()));
}

std::vector<std::string> select_rule_names(bool (*has)(const SelectRuleInfo&)) {
  std::vector<std::string> names;
  for (const SelectRuleInfo& rule : kSelectRuleTable) {
    if (has == nullptr || has(rule)) names.emplace_back(rule.name);
  }
  return names;
}

BestOfRow best_of_row(SelectRule rule, double strength, int block) {
  if (rule == SelectRule::nz_ratio) return {1 - std::sqrt(1 - strength), 0};
  return {0, std::max<int64_t>(1, static_cast<int64_t>(std::floor(strength / block)))};
}

}  // namespace seer::kernels
