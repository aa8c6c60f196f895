#pragma once
// What both kernels for sm_90a share: the roles of warpgroups, and the launch. A thread block, one on each multiprocessor, takes
// tiles of one head as long as there are any; a thread of its last warpgroup loads, the other warpgroups consume.

#include <algorithm>

#include "seer/kernels/attention/sm90/dense/producer.cuh"
#include "seer/kernels/attention/sm90/dense/walk.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/pooled_attn/sm90/config.h"

namespace seer::kernels::pooled_sm90 {

template <class Config>
constexpr int kThreads = (Config::kConsumers + 1) * kWarpgroup;

// The body of a kernel; consume(smem, w) is what consumer w does, with all tiles.
template <class Config, class Consume>
__device__ __forceinline__ void run_warpgroups(const attention::Maps& maps,
                                               const PooledAttnParams& p, const TileOrder& order,
                                               int kept_steps, Consume consume) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  if (threadIdx.x == 0) dense::init_barriers<Config>(smem);
  __syncthreads();  // barriers are ready
  if (threadIdx.x / kWarpgroup == Config::kConsumers) {
    ptx::give_registers<Config::kProducerRegisters>();
    if (threadIdx.x % kWarpgroup == 0) {
      auto* const counter = static_cast<unsigned long long*>(p.workspace);
      dense::produce<Config>(p, maps, order, kept_steps, smem,
                             [&] { return atomicAdd(counter, 1ull); });
    }
  } else {
    ptx::take_registers<Config::kConsumerRegisters>();
    consume(smem, static_cast<int>(threadIdx.x / kWarpgroup));
  }
}

template <class C, class Kernel>
void run(const PooledAttnParams& p, const attention::Maps& maps, Kernel kernel, void* stream) {
  const TileOrder order = tile_order(p, C::kQueries, p.num_blocks * p.block_k);
  const Kept most = kept_of(p);
  // Steps that a thread block keeps: those of the longest row, or what the workspace has room for.
  const int64_t room = (p.workspace_bytes - kCounterBytes) / most.step_bytes();
  SEER_CHECK(room > 0, "pooled_attn: the workspace has ", p.workspace_bytes,
             " bytes, want those of pooled_attn_workspace(), ", kCounterBytes + most.step_bytes(),
             " at least");
  const int64_t kept =
      std::min({std::max<int64_t>(longest_row_steps(p, most), 1), int64_t{most.most_steps}, room});
  const int64_t blocks = std::min({num_places(order), room / kept, int64_t{1} << 16});
  SEER_CUDA_CHECK(cudaMemsetAsync(p.workspace, 0, sizeof(unsigned long long),
                                  static_cast<cudaStream_t>(stream)));
  launch(kernel, dim3(static_cast<unsigned>(blocks)), kThreads<C>, sizeof(typename C::Smem), stream,
         maps, p, order, static_cast<int>(kept));
}

// A call without values: a map that no one loads from has to be valid, too.
inline attention::Maps maps_without_values(PooledAttnParams p, int row_bytes = 128) {
  p.v = p.k;
  return attention::tensor_maps(p, row_bytes);
}

}  // namespace seer::kernels::pooled_sm90
