#pragma once
// The CPU's entries of each step: all threads of OpenMP, results that do not depend on their
// number.

#include "seer/kernels/attn_gate/params.h"

namespace seer::kernels {

void attn_gate_pool_cpu(const GatePoolParams& p);  // without its RoPE
void attn_gate_project_cpu(const GateProjectParams& p);
void attn_gate_project_grad_cpu(const GateProjectGradParams& p);
void attn_gate_score_cpu(const GateScoreParams& p);
void attn_gate_score_grad_cpu(const GateScoreGradParams& p);

}  // namespace seer::kernels
