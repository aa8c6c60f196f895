#pragma once
// The rules by which block_select chooses: names, strengths, and what they ask of scores.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace seer::kernels {

// How blocks are chosen in a row (a query block) with `n` key blocks of the whole sequence.
enum class SelectRule {
  nz_ratio,     // r = 1 - sqrt(1 - strength); the k = max(1, int(r * n)) best, then the causal cut
  threshold,    // softmax of the row's scores > strength (strict)
  top_p,        // the fewest best blocks whose softmax mass is at least strength
  row_budget,   // the floor(strength / block) best, at least one; strength in tokens
  head_budget,  // per head and sequence: the int(strength * causal blocks of all rows) best softmax
                // values over all of its rows
};

// What a rule's strength is: a share of the causal blocks, a softmax weight or sum of weights, tokens.
enum class RuleUnit { density, weight, tokens };

struct SelectRuleInfo {
  SelectRule rule;
  const char* name;
  RuleUnit unit;
  double largest;     // strength: 0 ... largest
  bool best_of_row;   // takes the k best of every row, k known from strength and sizes alone
  bool needs_logits;  // reads scores as logits; false: their order alone

  constexpr bool takes_share() const { return unit == RuleUnit::density; }
};

inline constexpr SelectRuleInfo kSelectRuleTable[] = {
    {SelectRule::nz_ratio, "nz_ratio", RuleUnit::density, 1, true, false},
    {SelectRule::threshold, "threshold", RuleUnit::weight, 1, false, true},
    {SelectRule::top_p, "top_p", RuleUnit::weight, 1, false, true},
    {SelectRule::row_budget, "row_budget", RuleUnit::tokens, 1e15, true, false},
    {SelectRule::head_budget, "head_budget", RuleUnit::density, 1, false, true},
};

constexpr const SelectRuleInfo& select_rule(SelectRule rule) {
  return kSelectRuleTable[static_cast<int>(rule)];
}
// Error: no rule has this name; it lists them.
const SelectRuleInfo& select_rule(std::string_view name);
// Where a setting names none.
inline constexpr const char* kDefaultSelectRule = kSelectRuleTable[0].name;
// Names of all rules, or of those that `has` says yes to: for help and errors.
std::vector<std::string> select_rule_names(bool (*has)(const SelectRuleInfo&) = nullptr);

// The k of a rule that takes the k best of a row of one head. The order of operations, in double, is
// that of the published code.
struct BestOfRow {
  double ratio;
  int64_t fixed;  // 0: `ratio` of the row's blocks

  // `n` key blocks of the complete sequence.
  constexpr int64_t of(int64_t n) const {
    if (fixed > 0) return fixed;
    return std::max<int64_t>(1, static_cast<int64_t>(ratio * static_cast<double>(n)));
  }
};
BestOfRow best_of_row(SelectRule rule, double strength, int block);

}  // namespace seer::kernels
