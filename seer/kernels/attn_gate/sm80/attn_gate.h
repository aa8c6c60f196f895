#pragma once
// The gate's steps on sm_80 and later chips: plain CUDA, all arithmetic in f32. Each is asynchronous
// on `stream` and gives the same bits in every run; no allocation, no synchronisation.

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

}  // namespace seer::kernels
