#pragma once
// The gate's steps on GPUs, all arithmetic in f32; projection and scores of sm_90 have kernels of
// their own (wgmma). Each is asynchronous on `stream` and gives the same bits in every run; no
// allocation, no synchronisation.

#include <string>

#include "seer/kernels/attn_gate/params.h"

namespace seer::kernels {

// Of a multiprocessor's memory, for projection and pooling on every chip: keys are projected beside
// the pooling of queries (attn_gate_vectors). Shared memory for a few thread blocks of the one (three
// here, two of sm90's), and cache for the other, whose loads wait for cache lines with less.
constexpr int kSharedMemoryPercent = 66;

void attn_gate_pool_sm80(const GatePoolParams& p, void* stream);
void attn_gate_project_sm80(const GateProjectParams& p, void* stream);
void attn_gate_project_grad_sm80(const GateProjectGradParams& p, void* stream);
void attn_gate_score_sm80(const GateScoreParams& p, void* stream);
void attn_gate_score_grad_sm80(const GateScoreGradParams& p, void* stream);

// Empty, or what a call is to have for these kernels.
std::string why_not_attn_gate_project_sm90(const GateProjectParams& p);
std::string why_not_attn_gate_score_sm90(const GateScoreParams& p);

void attn_gate_project_sm90(const GateProjectParams& p, void* stream);
void attn_gate_score_sm90(const GateScoreParams& p, void* stream);

}  // namespace seer::kernels
