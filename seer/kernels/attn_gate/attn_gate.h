#pragma once
// AttnGate, the learned scorer of blocks: its three steps and their gradients. params.h says what
// each computes. Errors: sizes that do not fit together, or a device without an implementation.

#include "seer/kernels/attn_gate/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation of a step, the first choice first. Gradients have sm80's and the CPU's.
std::span<const Impl<GatePoolParams>> attn_gate_pool_impls();
std::span<const Impl<GateProjectParams>> attn_gate_project_impls();
std::span<const Impl<GateScoreParams>> attn_gate_score_impls();

void attn_gate_pool(const GatePoolParams& p, const Device& device, void* stream = nullptr);
void attn_gate_project(const GateProjectParams& p, const Device& device, void* stream = nullptr);
void attn_gate_project_grad(const GateProjectGradParams& p, const Device& device,
                            void* stream = nullptr);
void attn_gate_score(const GateScoreParams& p, const Device& device, void* stream = nullptr);
void attn_gate_score_grad(const GateScoreGradParams& p, const Device& device,
                          void* stream = nullptr);

// How many poolings `pools` has.
constexpr int count_pools(int pools) {
  return (pools & 1) + (pools >> 1 & 1) + (pools >> 2 & 1);
}

}  // namespace seer::kernels
