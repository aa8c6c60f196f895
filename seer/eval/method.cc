#include "seer/eval/method.h"

#include <cmath>

#include "seer/report/table.h"

namespace seer::eval {
namespace {

// What tables and results call a share of blocks: what is left out of it, as it was typed.
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
  if (!kernels::select_rule(setting.rule).takes_share())
    return setting.rule + " " + report::number(setting.strength, 4);
  const std::string text = "sparsity " + report::number(left_out(setting), 4);
  return setting.rule == kernels::kDefaultSelectRule ? text : setting.rule + ", " + text;
}

nlohmann::json asked_sparsity(const Setting& setting) {
  if (setting.rule.empty()) return 0.0;
  return kernels::select_rule(setting.rule).takes_share() ? nlohmann::json(left_out(setting))
                                                          : nlohmann::json(nullptr);
}

}  // namespace seer::eval
