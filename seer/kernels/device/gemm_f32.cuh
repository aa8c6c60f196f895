#pragma once
// A product of f32 matrices for one thread block, on tensor cores.
//
//   c[64, 64] += a[64, depth] b[depth, 64]
//
// Tensor cores take 11 bits of a factor. Each factor is therefore split in two, x = hi + lo, and
// three of the four products are summed: hi hi + hi lo + lo hi. What is left out is 2^-21 of a
// product at most and 2^-23 on average, less than a sum in f32 loses; and it is faster than the same
// in ordinary f32 arithmetic. Tensor cores truncate where that rounds, so that they sum the products
// of one step and no more.
//
// The matrices are functions of their indices, so that masks, strides and rotations are the
// caller's, or lie in memory as they are (Operand), which takes a third of the instructions. The
// order of all sums is fixed: the same bits in every run.

#include "seer/kernels/device/operand.cuh"
#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::device {

class GemmF32 {
 public:
  static constexpr int kTile = 64;      // rows and columns
  static constexpr int kThreads = 128;  // a warp has 32 rows and 32 columns
  static constexpr int kStep = 32;      // depth that shared memory holds
  // Thread blocks whose registers a multiprocessor has, by what operands are.
  static constexpr int kBlocksOfOperands = 4, kBlocksOfFunctions = 3;

  // An operand of one step, as it lies in memory: [side][depth] or [depth][side]. Rows are padded so
  // that the elements of a fragment lie in different banks.
  static constexpr int kDepthRow = kStep + 4, kSideRow = kTile + 8;
  static constexpr int kOperand = kTile * kDepthRow;
  static_assert(kOperand >= kStep * kSideRow, "both layouts fit");
  struct alignas(16) Smem {
    float a[kOperand], b[kOperand];
  };
  struct SmemOfTwo {  // for Operands: a step is on its way while the one before is multiplied
    Smem step[2];
  };

  __device__ __forceinline__ GemmF32() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum_[m][n][i] = 0;
      }
    }
  }

  // a(row, k) and b(column, k) for rows and columns 0 .. 63 and k 0 .. depth - 1. Called by all
  // threads of the block.
  template <Along kA, Along kB, class A, class B>
  __device__ __forceinline__ void accumulate(Smem& smem, int depth, const A& a, const B& b) {
    float next_a[kPart], next_b[kPart];
    fetch<kA>(next_a, a, 0, depth);
    fetch<kB>(next_b, b, 0, depth);
    for (int k0 = 0; k0 < depth; k0 += kStep) {
      __syncthreads();  // no thread still reads the step before
      store<kA>(smem.a, next_a);
      store<kB>(smem.b, next_b);
      __syncthreads();
      if (k0 + kStep < depth) {
        fetch<kA>(next_a, a, k0 + kStep, depth);
        fetch<kB>(next_b, b, k0 + kStep, depth);
      }
      multiply<kA, kB>(smem);
    }
  }

  // The same of matrices in memory.
  template <Along kA, Along kB>
  __device__ __forceinline__ void accumulate(SmemOfTwo& smem, int depth, const Operand& a,
                                             const Operand& b) {
    copy<kA>(smem.step[0].a, a, 0, depth);
    copy<kB>(smem.step[0].b, b, 0, depth);
    ptx::cp_async_commit();
    for (int k0 = 0, step = 0; k0 < depth; k0 += kStep, step ^= 1) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // the step has arrived for all threads, and none still reads the one before
      if (k0 + kStep < depth) {
        copy<kA>(smem.step[step ^ 1].a, a, k0 + kStep, depth);
        copy<kB>(smem.step[step ^ 1].b, b, k0 + kStep, depth);
        ptx::cp_async_commit();
      }
      multiply<kA, kB>(smem.step[step]);
    }
  }

  // take(row, column, x, y) for all of this thread's elements: x is that of (row, column), y that of
  // (row, column + 1); columns are even.
  template <class Take>
  __device__ __forceinline__ void for_each_pair(const Take& take) const {
    for_each_two([&](int row, int column, const float* x, const float* y) {
      take(row, column, x[0], x[1]);
      take(row, column + 32, y[0], y[1]);
    });
  }
  // take(row, column, x, y): x[0], x[1] are those of column and column + 1, y[0], y[1] those 32 columns
  // further on.
  template <class Take>
  __device__ __forceinline__ void for_each_two(const Take& take) const {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row() + 16 * m + 8 * half + threadIdx.x % 32 / 4;
#pragma unroll
        for (int n = 0; n < kColumnTiles / 2; ++n) {
          take(row, column_of(n) + threadIdx.x % 4 * 2, &sum_[m][n][2 * half],
               &sum_[m][n + kColumnTiles / 2][2 * half]);
        }
      }
    }
  }

 private:
  static constexpr int kRowTiles = 2, kColumnTiles = 4;   // of 16 rows, 8 columns
  static constexpr int kPart = kTile * kStep / kThreads;  // elements that a thread fetches
  float sum_[kRowTiles][kColumnTiles][4];

  __device__ __forceinline__ static int first_row() { return threadIdx.x / 64 * 32; }
  // A warp has 16 of the first 32 columns and 16 of the others.
  __device__ __forceinline__ static int column_of(int n) {
    return n / 2 * 32 + threadIdx.x / 32 % 2 * 16 + n % 2 * 8;
  }

  // The i-th element of this thread.
  template <Along kAlong>
  __device__ __forceinline__ static void place(int i, int* side, int* k) {
    if constexpr (kAlong == Along::depth) {
      *k = threadIdx.x % kStep;
      *side = threadIdx.x / kStep + kThreads / kStep * i;
    } else {
      *side = threadIdx.x % kTile;
      *k = threadIdx.x / kTile + kThreads / kTile * i;
    }
  }
  template <Along kAlong>
  __device__ __forceinline__ static int offset(int side, int k) {
    return kAlong == Along::depth ? side * kDepthRow + k : k * kSideRow + side;
  }

  template <Along kAlong, class Matrix>
  __device__ __forceinline__ static void fetch(float (&to)[kPart], const Matrix& matrix, int k0,
                                               int depth) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      int side, k;
      place<kAlong>(i, &side, &k);
      to[i] = k0 + k < depth ? matrix(side, k0 + k) : 0.0f;
    }
  }

  template <Along kAlong>
  __device__ __forceinline__ static void store(float* to, const float (&from)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      int side, k;
      place<kAlong>(i, &side, &k);
      to[offset<kAlong>(side, k)] = from[i];
    }
  }

  // Starts the copy of one step of an operand.
  template <Along kAlong>
  __device__ __forceinline__ static void copy(float* to, const Operand& from, int k0, int depth) {
    constexpr int kHalf = kTile / 2;
    constexpr int kInRow = (kAlong == Along::depth ? kStep : kTile) / 4;  // chunks of four floats
    constexpr int kAtOnce = kThreads / kInRow, kTimes = kTile * kStep / 4 / kThreads;
    const int along = threadIdx.x % kInRow * 4, first = threadIdx.x / kInRow;
    if constexpr (kAlong == Along::depth) {
      static_assert(kHalf % kAtOnce == 0, "what is copied at once is of one run");
#pragma unroll
      for (int i = 0; i < kTimes; ++i) {
        const int side = first + kAtOnce * i, half = kAtOnce * i / kHalf;
        const float* at = from.run[half] + (side - half * kHalf) * from.stride + k0 + along;
        ptx::cp_async_16(ptx::smem_address(to + offset<kAlong>(side, along)), at,
                         side < from.sides && k0 + along < depth);
      }
    } else {
      const float* run = along < kHalf ? from.run[0] + along : from.run[1] + (along - kHalf);
#pragma unroll
      for (int i = 0; i < kTimes; ++i) {
        const int k = first + kAtOnce * i;
        ptx::cp_async_16(ptx::smem_address(to + offset<kAlong>(along, k)),
                         run + (k0 + k) * from.stride, k0 + k < depth);
      }
    }
  }

  // x = hi + lo; hi has the 11 bits that tensor cores take, and they cut lo to as many.
  __device__ __forceinline__ static void split(float x, uint32_t* hi, uint32_t* lo) {
    *hi = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
    *lo = __float_as_uint(x - __uint_as_float(*hi));
  }

  template <Along kA, Along kB>
  __device__ __forceinline__ void multiply(const Smem& smem) {
    const int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    float c[kRowTiles][kColumnTiles][4] = {};
#pragma unroll
    for (int k0 = 0; k0 < kStep; k0 += 8) {
      uint32_t a_hi[kRowTiles][4], a_lo[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = first_row() + 16 * m + group + i % 2 * 8, k = k0 + quad + i / 2 * 4;
          split(smem.a[offset<kA>(row, k)], &a_hi[m][i], &a_lo[m][i]);
        }
      }
      uint32_t b_hi[kColumnTiles][2], b_lo[kColumnTiles][2];
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = column_of(n) + group, k = k0 + quad + i * 4;
          split(smem.b[offset<kB>(column, k)], &b_hi[n][i], &b_lo[n][i]);
        }
      }
      // A sum waits for the product before it: eight independent sums are interleaved.
      const auto add = [&](const auto& a, const auto& b) {
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            ptx::mma_tf32_16x8x8(c[m][n], a[m], b[n][0], b[n][1]);
          }
        }
      };
      add(a_lo, b_hi);
      add(a_hi, b_lo);
      add(a_hi, b_hi);
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum_[m][n][i] += c[m][n][i];
      }
    }
  }
};

}  // namespace seer::device
