#pragma once
// Attention of the newest tokens to a long cache of keys and values: the public call.

#include "seer/kernels/decode_attn/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<DecodeAttnParams>> decode_attn_impls();

// Keys in a piece that keep a GPU busy to the end; 0 on the CPU, which cuts keys by itself.
int decode_attn_split(const DecodeAttnParams& p, const Device& device);
// Floats of scratch that a call with p.split wants on a GPU.
int64_t decode_attn_partials(const DecodeAttnParams& p);

// Checks the parameters and runs the first implementation that takes them; asynchronous on `stream`
// where `device` is a GPU. Error: what the contract forbids, or every implementation's reason.
void decode_attn(const DecodeAttnParams& p, const Device& device = {}, void* stream = nullptr);

}  // namespace seer::kernels
