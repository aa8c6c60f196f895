#pragma once
// The gate's steps as plain loops in double: what the implementations are compared with, and what
// finite differences are taken of. Sizes, prefix sums and tables come from the params; tensors that
// a finite difference moves come beside them (those in the params are not read).

#include <vector>

#include "seer/kernels/attn_gate/params.h"

namespace seer::kernels::reference {

std::vector<double> attn_gate_pool(const GatePoolParams& p);
// weight is empty where p.weight is null.
std::vector<double> attn_gate_project(const GateProjectParams& p, const std::vector<double>& x,
                                      const std::vector<double>& weight);
std::vector<double> attn_gate_score(const GateScoreParams& p, const std::vector<double>& q_gate,
                                    const std::vector<double>& k_gate);

}  // namespace seer::kernels::reference
