#include "seer/kernels/pooled_attn/map_rows.h"

#include "seer/kernels/cuda_check.h"

namespace seer::kernels {
namespace {

constexpr int kRowsPerBlock = 8;  // a warp each

__global__ void __launch_bounds__(kRowsPerBlock * 32)
    normalise_rows(float* map, int64_t num_rows, int64_t num_blocks) {
  const int64_t at = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32;
  if (at >= num_rows) return;
  float* row = map + at * num_blocks;
  float sum = 0.f;
  for (int64_t j = threadIdx.x % 32; j < num_blocks; j += 32) sum += row[j];
  for (int lanes = 16; lanes >= 1; lanes /= 2) sum += __shfl_xor_sync(0xffffffff, sum, lanes);
  if (!(sum > 0.f)) return;  // the row sees nothing, or holds NaN
  for (int64_t j = threadIdx.x % 32; j < num_blocks; j += 32) row[j] = row[j] / sum;
}

}  // namespace

void clear_map(const PooledAttnParams& p, void* stream) {
  const int64_t entries = p.num_map_heads * p.num_rows * p.num_blocks;
  if (entries == 0) return;
  SEER_CUDA_CHECK(cudaMemsetAsync(p.map, 0, static_cast<size_t>(entries) * sizeof(float),
                                  static_cast<cudaStream_t>(stream)));
}

void normalise_map(const PooledAttnParams& p, void* stream) {
  const int64_t rows = p.num_map_heads * p.num_rows;
  const int64_t blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
  if (blocks == 0 || p.num_blocks == 0) return;
  launch(normalise_rows, dim3(static_cast<unsigned>(blocks)), kRowsPerBlock * 32, 0, stream, p.map,
         rows, p.num_blocks);
}

}  // namespace seer::kernels
