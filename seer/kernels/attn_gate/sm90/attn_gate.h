#pragma once
// Projection and scores on sm_90. Asynchronous on `stream`, the same bits in every run; no
// allocation, no synchronisation.

#include <string>

#include "seer/kernels/attn_gate/params.h"

namespace seer::kernels {

// Empty, or what a call is to have for these kernels.
std::string why_not_attn_gate_project_sm90(const GateProjectParams& p);
std::string why_not_attn_gate_score_sm90(const GateScoreParams& p);

void attn_gate_project_sm90(const GateProjectParams& p, void* stream);
void attn_gate_score_sm90(const GateScoreParams& p, void* stream);

}  // namespace seer::kernels
