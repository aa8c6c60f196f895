#pragma once
// A way to compute attention that an evaluation measures, and how it is named in tables.

#include <nlohmann/json.hpp>
#include <string>

#include "seer/models/sparse_attention.h"

namespace seer::eval {

struct Method {
  bool dense = true;
  models::SparseSettings sparse;  // where not dense
};

// "dense", "seer" (trained gates), or another method's name.
std::string method_name(const Method& method);

// What a row was asked for: the rule of block_select with its strength; no rule for dense.
struct Setting {
  std::string rule;
  double strength = 0;
};
Setting setting_of(const Method& method);
Setting setting_of(const torch_ops::Selection& selection);
// As "sparsity 0.9" or "threshold 0.005"; empty for dense.
std::string to_text(const Setting& setting);
// Share of blocks to leave out: 0 for dense, null where the rule sets another limit.
nlohmann::json asked_sparsity(const Setting& setting);

}  // namespace seer::eval
