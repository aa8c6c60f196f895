#pragma once
// wgmma of 64 rows with B in shared memory, accumulated in f32 where nothing else is said.

#include "seer/kernels/device/ptx_sm90.cuh"

namespace seer::ptx {

// Low word of the descriptor of a shared-memory matrix: start address, and the stride between
// chunks of columns. Offsets may be added: one per 16 bytes.
__device__ __forceinline__ uint32_t wgmma_descriptor(uint32_t address, int lead_bytes) {
  return static_cast<uint32_t>(lead_bytes >> 4) << 16 | ((address & 0x3FFFF) >> 4);
}

// High word: the swizzle, of as many bytes as a row has (128 or 64), and the bytes between groups of eight rows.
constexpr uint32_t descriptor_high(int row_bytes) {
  return (row_bytes == 128 ? 1u : 2u) << 30 | 8 * row_bytes >> 4;
}
constexpr uint32_t kDescriptorHigh = descriptor_high(128);

// The accumulators: their places in the instruction, and their operands.
#define SEER_PLACES_32                                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SEER_PLACES_48                                                            \
  SEER_PLACES_32                                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, " \
  "%47"
#define SEER_PLACES_64                                                            \
  SEER_PLACES_48                                                                  \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, " \
  "%63"
#define SEER_C8(i)                                                                            \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), \
      "+f"(c[i + 6]), "+f"(c[i + 7])
#define SEER_C_32 SEER_C8(0), SEER_C8(8), SEER_C8(16), SEER_C8(24)
#define SEER_C_48 SEER_C_32, SEER_C8(32), SEER_C8(40)
#define SEER_C_64 SEER_C_48, SEER_C8(48), SEER_C8(56)

#define SEER_WGMMA_N64(TYPE, TRANS)                                                   \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\n"                      \
      "mov.b64 b, {%36, %38};\n"                                                      \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" SEER_PLACES_32 \
      "}, {%32, %33, %34, %35}, b, p, 1, 1, " TRANS ";\n}\n"                          \
      : SEER_C_32                                                                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kHigh))

#define SEER_WGMMA_N96(TYPE, TRANS)                                                   \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %53, 0;\n"                      \
      "mov.b64 b, {%52, %54};\n"                                                      \
      "wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE " {" SEER_PLACES_48 \
      "}, {%48, %49, %50, %51}, b, p, 1, 1, " TRANS ";\n}\n"                          \
      : SEER_C_48                                                                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kHigh))

#define SEER_WGMMA_N128(TYPE, TRANS)                                                   \
  asm volatile(                                                                        \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %69, 0;\n"                       \
      "mov.b64 b, {%68, %70};\n"                                                       \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" SEER_PLACES_64 \
      "}, {%64, %65, %66, %67}, b, p, 1, 1, " TRANS ";\n}\n"                           \
      : SEER_C_64                                                                      \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kHigh))

// c[64 x N] (+)= a[64 x 16] B, with B stored [N, 16] (or [16, N] where kTransposed).
template <class Element, bool kTransposed, int kRowBytes = 128, int kRegs>
__device__ __forceinline__ void wgmma_rs(float (&c)[kRegs], const uint32_t (&a)[4], uint32_t b,
                                         int accumulate) {
  constexpr uint32_t kHigh = descriptor_high(kRowBytes);
  constexpr bool kBf16 = std::is_same_v<Element, __nv_bfloat16>;
  static_assert(kRegs == 32 || kRegs == 48 || kRegs == 64);
  if constexpr (kRegs == 32 && kBf16 && !kTransposed) {
    SEER_WGMMA_N64("bf16", "0");
  } else if constexpr (kRegs == 32 && kBf16 && kTransposed) {
    SEER_WGMMA_N64("bf16", "1");
  } else if constexpr (kRegs == 32 && !kBf16 && !kTransposed) {
    SEER_WGMMA_N64("f16", "0");
  } else if constexpr (kRegs == 32 && !kBf16 && kTransposed) {
    SEER_WGMMA_N64("f16", "1");
  } else if constexpr (kRegs == 48 && kBf16 && !kTransposed) {
    SEER_WGMMA_N96("bf16", "0");
  } else if constexpr (kRegs == 48 && kBf16 && kTransposed) {
    SEER_WGMMA_N96("bf16", "1");
  } else if constexpr (kRegs == 48 && !kBf16 && !kTransposed) {
    SEER_WGMMA_N96("f16", "0");
  } else if constexpr (kRegs == 48 && !kBf16 && kTransposed) {
    SEER_WGMMA_N96("f16", "1");
  } else if constexpr (kRegs == 64 && kBf16 && !kTransposed) {
    SEER_WGMMA_N128("bf16", "0");
  } else if constexpr (kRegs == 64 && kBf16 && kTransposed) {
    SEER_WGMMA_N128("bf16", "1");
  } else if constexpr (kRegs == 64 && !kBf16 && !kTransposed) {
    SEER_WGMMA_N128("f16", "0");
  } else if constexpr (kRegs == 64 && !kBf16 && kTransposed) {
    SEER_WGMMA_N128("f16", "1");
  }
}

// c[64 x 64] (+)= a[64 x 8] B^T, with B stored [64, 8]: f32, of which the upper 19 bits count.
__device__ __forceinline__ void wgmma_rs_tf32(float (&c)[32], const uint32_t (&a)[4], uint32_t b,
                                              int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\n"
      "mov.b64 b, {%36, %38};\n"
      "wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {" SEER_PLACES_32
      "}, {%32, %33, %34, %35}, b, p, 1, 1;\n}\n"
      : SEER_C_32
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kDescriptorHigh));
}

#define SEER_WGMMA_SS_N64(TYPE)                                                       \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %34, 0;\n"                   \
      "mov.b64 a, {%32, %35};\nmov.b64 b, {%33, %35};\n"                              \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" SEER_PLACES_32 \
      "}, a, b, p, 1, 1, 0, 0;\n}\n"                                                  \
      : SEER_C_32                                                                     \
      : "r"(a), "r"(b), "r"(accumulate), "n"(kDescriptorHigh))

// c[64 x 64] (+)= A B^T, both stored [64, 16].
template <class Element>
__device__ __forceinline__ void wgmma_ss_n64(float (&c)[32], uint32_t a, uint32_t b,
                                             int accumulate) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    SEER_WGMMA_SS_N64("bf16");
  } else {
    SEER_WGMMA_SS_N64("f16");
  }
}

#define SEER_WGMMA_SS_N128(TYPE)                                                       \
  asm volatile(                                                                        \
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %66, 0;\n"                    \
      "mov.b64 a, {%64, %67};\nmov.b64 b, {%65, %67};\n"                               \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" SEER_PLACES_64 \
      "}, a, b, p, 1, 1, 0, 0;\n}\n"                                                   \
      : SEER_C_64                                                                      \
      : "r"(a), "r"(b), "r"(accumulate), "n"(kDescriptorHigh))

// c[64 x 128] (+)= A B^T, stored [64, 16] and [128, 16].
template <class Element>
__device__ __forceinline__ void wgmma_ss_n128(float (&c)[64], uint32_t a, uint32_t b,
                                              int accumulate) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    SEER_WGMMA_SS_N128("bf16");
  } else {
    SEER_WGMMA_SS_N128("f16");
  }
}

#define SEER_R8(i)                                                                            \
  "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3]), "+r"(c[i + 4]), "+r"(c[i + 5]), \
      "+r"(c[i + 6]), "+r"(c[i + 7])

// c[64 x 128] (+)= a[64 x 16] B^T, all of f16, with B stored [128, 16]; two neighbouring columns a register.
template <int kRowBytes>
__device__ __forceinline__ void wgmma_rs_f16(uint32_t (&c)[32], const uint32_t (&a)[4], uint32_t b,
                                             int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\n"
      "mov.b64 b, {%36, %38};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f16.f16.f16 {" SEER_PLACES_32
      "}, {%32, %33, %34, %35}, b, p, 1, 1, 0;\n}\n"
      : SEER_R8(0), SEER_R8(8), SEER_R8(16), SEER_R8(24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate),
        "n"(descriptor_high(kRowBytes)));
}

#undef SEER_R8
#undef SEER_WGMMA_N64
#undef SEER_WGMMA_N96
#undef SEER_WGMMA_N128
#undef SEER_WGMMA_SS_N64
#undef SEER_WGMMA_SS_N128
#undef SEER_PLACES_32
#undef SEER_PLACES_48
#undef SEER_PLACES_64
#undef SEER_C8
#undef SEER_C_32
#undef SEER_C_48
#undef SEER_C_64

// Accumulators lie in pairs of columns; this gives a lane eight columns of one group instead. x[i] of
// lane j of a quad goes to x[j] of lane i; quad: the lane's place in it.
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4], int quad) {
  const bool is_odd = quad & 1, is_high = quad & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffff, is_odd ? x[i] : x[i + 1], 1);
    (is_odd ? x[i] : x[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t other = __shfl_xor_sync(0xffffffff, is_high ? x[i] : x[i + 2], 2);
    (is_high ? x[i] : x[i + 2]) = other;
  }
}

}  // namespace seer::ptx
