#pragma once
// Attention of the newest tokens on the CPU.

#include "seer/kernels/decode_attn/params.h"

namespace seer::kernels {

// The arithmetic of one piece of keys, compiled for each instruction set.
struct DecodeKernels;
const DecodeKernels& best_decode_kernels();

// The same bits in every run and for every number of threads. Error: prefix sums that are out of
// range or in disorder.
void decode_attn_cpu(const DecodeAttnParams& p, const DecodeKernels& kernels);

}  // namespace seer::kernels
