#include "seer/eval/method.h"

#include <cmath>

#include "seer/report/table.h"

namespace seer::eval {
namespace {

// Whether the rule's strength is a share of the blocks.
bool is_by_share(const Setting& setting) {
  return kernels::select_rule(setting.rule).unit == kernels::RuleUnit::density;
}

double left_out(const Setting& setting) {
  return std::round((1 - setting.strength) * 1e6) / 1e6;
}

}  // namespace

std::string method_name(const Method& method) {
  return method.dense ? "dense" : method.sparse.method;
}

Setting setting_of(const Method& method) {
  if (method.dense) return {};
  return setting_of(method.sparse.selection);
}

Setting setting_of(const torch_ops::Selection& selection) {
  return {selection.rule, selection.strength.at(0)};
}

std::string to_text(const Setting& setting) {
  if (setting.rule.empty()) return "";
  if (!is_by_share(setting)) return setting.rule + " " + report::number(setting.strength, 4);
  const std::string text = "sparsity " + report::number(left_out(setting), 4);
  return setting.rule == "nz_ratio" ? text : setting.rule + ", " + text;
}

nlohmann::json asked_sparsity(const Setting& setting) {
  if (setting.rule.empty()) return 0.0;
  return is_by_share(setting) ? nlohmann::json(left_out(setting)) : nlohmann::json(nullptr);
}

}  // namespace seer::eval
