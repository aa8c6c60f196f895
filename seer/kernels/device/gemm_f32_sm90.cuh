#pragma once
// Products of f32 matrices for one warpgroup of sm_90, one after another, which the copy engine
// brings.
//
//   c[64, 64] = a[64, depth] b[64, depth]^T
//
// As gemm_f32.cuh has it, x = hi + lo and hi hi + hi lo + lo hi. Of b, which tensor cores read from
// shared memory, hi is what they take of it, all but its last 13 bits, so that only lo has to be
// written. a passes through registers, and its hi is rounded: its lo has either sign, so that lo lo,
// which is left out, does not add up. With what is cut off the lo, a product is off by 2^-20 of it
// at most, 2^-22 on average. Tensor cores truncate where f32 arithmetic rounds, so that they sum
// the products of one step and no more. The order of all sums is fixed: the same bits in every run.

#include "seer/kernels/device/operand.cuh"
#include "seer/kernels/device/wgmma_sm90.cuh"

namespace seer::device {

// 64 sides of one head of a packed tensor (tensor_map.h). Where the depth runs along memory they
// are rows, from `first` on; where the sides do, columns: 32 from `first` on and 32 from `second`
// on.
struct TensorOperand {
  int head, first, second;
};
struct TensorOperands {
  TensorOperand a, b;
};

// kA: which index of a runs along memory; that of b is the depth. kStages_: steps in shared memory.
template <Along kA, int kStages_>
class GemmF32Sm90 {
 public:
  static constexpr int kTile = 64, kThreads = 128, kStages = kStages_;
  static constexpr int kStep = 32;  // depth of a step: rows of 128 bytes, in their swizzle

  struct Smem {
    alignas(1024) float a[kStages][kTile * kStep];
    alignas(1024) float b[kStages][kTile * kStep];
    alignas(1024) float b_lo[2][kTile * kStep];
    uint64_t full[kStages];
  };

  // For `count` products of one depth, of a's and b's tensors; operands(n) are the TensorOperands
  // of the n-th. The first steps are on their way at once. By all threads of the block, as
  // multiply().
  template <class Operands>
  __device__ __forceinline__ GemmF32Sm90(Smem& smem, const CUtensorMap& a, const CUtensorMap& b,
                                         int depth, int count, const Operands& operands)
      : smem_(smem), a_(a), b_(b), steps_((depth + kStep - 1) / kStep), end_(count * steps_) {
    if (threadIdx.x == 0) {
      for (uint64_t& full : smem.full) ptx::mbarrier_init(ptx::smem_address(&full), 1);
      ptx::fence_mbarrier_init();
      for (int stage = 0; stage < min(kStages, end_); ++stage) load(stage, operands);
    }
    __syncthreads();
  }

  // The next product. Steps are loaded ahead, of the products that follow, too.
  template <class Operands>
  __device__ __forceinline__ void multiply(const Operands& operands) {
#pragma unroll
    for (float& x : sum_) x = 0;
    for (const int end = step_ + steps_; step_ < end; ++step_) {
      const int stage = step_ % kStages;
      ptx::mbarrier_wait(ptx::smem_address(&smem_.full[stage]), step_ / kStages & 1);
      float* lo = smem_.b_lo[step_ % 2];
      uint32_t a_hi[kDepths][4], a_lo[kDepths][4];
      fetch_a(a_hi, smem_.a[stage]);
      split_a(a_hi, a_lo);
      float c[kSums];
      const uint32_t hi = ptx::wgmma_descriptor(ptx::smem_address(smem_.b[stage]), 16);
      const uint32_t low = ptx::wgmma_descriptor(ptx::smem_address(lo), 16);
      constexpr int kUnits = 8 * sizeof(float) / 16;  // of 8 columns in a descriptor
      ptx::fence_registers(c);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepths; ++k) ptx::wgmma_rs_tf32(c, a_lo[k], hi + kUnits * k, k > 0);
#pragma unroll
      for (int k = 0; k < kDepths; ++k) ptx::wgmma_rs_tf32(c, a_hi[k], hi + kUnits * k, 1);
      ptx::wgmma_commit();
      split_b(lo, smem_.b[stage]);  // meanwhile
      ptx::fence_proxy_async();
      __syncthreads();
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepths; ++k) ptx::wgmma_rs_tf32(c, a_hi[k], low + kUnits * k, 1);
      ptx::wgmma_commit();
      // All products of the step before are done: the one kStages further on takes its place.
      if (threadIdx.x == 0 && step_ > 0 && step_ - 1 + kStages < end_) {
        load((step_ - 1) % kStages, operands);
      }
      ptx::wgmma_wait<0>();
      ptx::fence_registers(c);
#pragma unroll
      for (int i = 0; i < kSums; ++i) sum_[i] += c[i];
    }
  }

  // A thread has elements of two rows, first_row() and, where sides of a run along memory, 32
  // further on, otherwise 8; and of the columns 8 i + first_column() and the next.
  __device__ __forceinline__ static int first_row() {
    return threadIdx.x / 32 * (kA == Along::depth ? 16 : 8) + threadIdx.x % 32 / 4;
  }
  __device__ __forceinline__ static int first_column() { return threadIdx.x % 4 * 2; }

  // take(i, x, y) for i = 0 ... 7: x[0], x[1] are the two columns' elements of the first row, y[0],
  // y[1] those of the other. May change them.
  template <class Take>
  __device__ __forceinline__ void for_each_two(const Take& take) {
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) take(i, &sum_[4 * i], &sum_[4 * i + 2]);
  }

 private:
  static constexpr int kSums = kTile * kTile / kThreads;  // of a thread
  static constexpr int kDepths = kStep / 8;               // of an instruction, in a step
  Smem& smem_;
  const CUtensorMap &a_, &b_;
  int steps_, end_, step_ = 0;         // of a product, of all, the next
  int next_product_ = 0, next_k_ = 0;  // to be loaded
  TensorOperands next_;
  float sum_[kSums];

  // The next step that is not on its way yet, by one thread.
  template <class Operands>
  __device__ __forceinline__ void load(int stage, const Operands& operands) {
    if (next_k_ == 0) next_ = operands(next_product_);
    const TensorOperand &a = next_.a, &b = next_.b;
    const uint32_t full = ptx::smem_address(&smem_.full[stage]);
    const auto copy = [&](const float* to, const CUtensorMap& map, int column, int head, int row) {
      ptx::tma_load_3d(ptx::smem_address(to), &map, full, column, head, row,
                       ptx::CacheHint::kNormal);
    };
    ptx::mbarrier_expect_tx(full, 2 * kTile * kStep * static_cast<int>(sizeof(float)));
    if constexpr (kA == Along::depth) {
      copy(smem_.a[stage], a_, next_k_, a.head, a.first);
    } else {
      copy(smem_.a[stage], a_, a.first, a.head, next_k_);
      copy(smem_.a[stage] + kTile / 2 * kStep, a_, a.second, a.head, next_k_);
    }
    copy(smem_.b[stage], b_, next_k_, b.head, b.first);
    next_k_ += kStep;
    if (next_k_ >= steps_ * kStep) next_k_ = 0, ++next_product_;
  }

  // What tensor cores take of x, and half of the last bit of that: added before, it rounds.
  __device__ __forceinline__ static uint32_t taken(uint32_t x) { return x & 0xffffe000u; }
  static constexpr uint32_t kHalf = 0x1000;

  static constexpr int kFours = kTile * kStep / 4 / kThreads;  // of b, of a thread
  __device__ __forceinline__ static int four(int i) {
    return (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
  }
  // lo lies where x does in its own buffer, whatever the swizzle.
  __device__ __forceinline__ static void split_b(float* lo, const float* x) {
    float4 read[kFours];  // all of it before the first is written: they travel together
#pragma unroll
    for (int i = 0; i < kFours; ++i) read[i] = *reinterpret_cast<const float4*>(x + four(i));
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const float4& v = read[i];
      *reinterpret_cast<float4*>(lo + four(i)) =
          make_float4(low_b(v.x), low_b(v.y), low_b(v.z), low_b(v.w));
    }
  }
  __device__ __forceinline__ static float low_b(float x) {
    return x - __uint_as_float(taken(__float_as_uint(x)));
  }

  // The fragments of this warp: lane l has rows l / 4 and l / 4 + 8, columns l % 4 and l % 4 + 4.
  __device__ __forceinline__ static void fetch_a(uint32_t (&to)[kDepths][4], const float* x) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < kDepths; ++k) {
      if constexpr (kA == Along::depth) {  // ldmatrix takes eight rows of 16 bytes: four floats
        const int row = warp * 16 + lane % 16;
        const int at = row * kStep + ((2 * k + lane / 16) ^ (row % 8)) * 4;
        ptx::ldmatrix_x4(to[k], ptx::smem_address(x + at));
      } else {  // row l / 4 is of the first half of the sides, l / 4 + 8 of the second
        const int side = warp * 8 + lane / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 8 * k + lane % 4 + i / 2 * 4;
          const int at = row * (kTile / 2) + ((side / 4) ^ (row % 8)) * 4 + side % 4;
          to[k][i] = __float_as_uint(x[i % 2 * (kTile / 2 * kStep) + at]);
        }
      }
    }
  }
  __device__ __forceinline__ static void split_a(uint32_t (&x)[kDepths][4],
                                                 uint32_t (&lo)[kDepths][4]) {
#pragma unroll
    for (int k = 0; k < kDepths; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t hi = taken(x[k][i] + kHalf);
        lo[k][i] = __float_as_uint(__uint_as_float(x[k][i]) - __uint_as_float(hi));
        x[k][i] = hi;
      }
    }
  }
};

}  // namespace seer::device
