#pragma once
// A product of f32 matrices for one thread block, in f32 arithmetic: no rounding to TF32.
//
//   c[64, 64] += a[64, depth] b[depth, 64]
//
// The matrices are functions of their indices, so that masks, strides and rotations are the
// caller's. Each element of c is one thread's sum in the order of depth: the same bits in every run.

namespace seer::device {

// Which index of an operand runs along memory: threads that are neighbours read along it.
enum class Along { depth, side };

struct GemmF32 {
  static constexpr int kTile = 64;  // rows and columns
  static constexpr int kThreads = 128;
  static constexpr int kRows = 8, kColumns = 4;  // of a thread
  static constexpr int kStep = 16;               // depth that shared memory holds

  struct alignas(16) Smem {
    float a[kStep][kTile + 4];
    float b[kStep][kTile + 4];
  };

  float c[kRows][kColumns];  // of rows row() + i and columns column() + j

  __device__ __forceinline__ GemmF32() {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) c[i][j] = 0;
    }
  }

  // A warp has 32 rows and 32 columns.
  __device__ __forceinline__ static int row() {
    return (threadIdx.x / 64 * 4 + threadIdx.x % 32 / 8) * kRows;
  }
  __device__ __forceinline__ static int column() {
    return (threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8) * kColumns;
  }

  // a(row, k) and b(column, k) for rows and columns 0 .. 63 and k 0 .. depth - 1. Called by all
  // threads of the block.
  template <Along kA, Along kB, class A, class B>
  __device__ __forceinline__ void accumulate(Smem& smem, int depth, const A& a, const B& b) {
    float next_a[kPart], next_b[kPart];
    fetch<kA>(next_a, a, 0, depth);
    fetch<kB>(next_b, b, 0, depth);
    for (int k0 = 0; k0 < depth; k0 += kStep) {
      __syncthreads();  // no thread reads the step before any more
      store<kA>(smem.a, next_a);
      store<kB>(smem.b, next_b);
      __syncthreads();
      if (k0 + kStep < depth) {
        fetch<kA>(next_a, a, k0 + kStep, depth);
        fetch<kB>(next_b, b, k0 + kStep, depth);
      }
      multiply(smem);
    }
  }

 private:
  static constexpr int kPart = kTile * kStep / kThreads;  // elements that a thread fetches

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
  __device__ __forceinline__ static void store(float (&to)[kStep][kTile + 4],
                                               const float (&from)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      int side, k;
      place<kAlong>(i, &side, &k);
      to[k][side] = from[i];
    }
  }

  __device__ __forceinline__ void multiply(const Smem& smem) {
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      float x[kRows], y[kColumns];
#pragma unroll
      for (int i = 0; i < kRows; i += 4) load_4(x + i, &smem.a[k][row() + i]);
      load_4(y, &smem.b[k][column()]);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) c[i][j] = fmaf(x[i], y[j], c[i][j]);
      }
    }
  }

  __device__ __forceinline__ static void load_4(float* to, const float* from) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  }
};

}  // namespace seer::device
