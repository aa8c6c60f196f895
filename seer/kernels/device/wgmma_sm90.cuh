#pragma once
// wgmma of 64 rows with A in registers and B in shared memory, accumulated in f32.

#include "seer/kernels/device/ptx_sm90.cuh"

namespace seer::ptx {

// Low word of the descriptor of a shared-memory matrix in the 128-byte swizzle: start address, and
// the stride between 64-column chunks. Offsets may be added: one per 16 bytes.
__device__ __forceinline__ uint32_t wgmma_descriptor(uint32_t address, int lead_bytes) {
  return static_cast<uint32_t>(lead_bytes >> 4) << 16 | ((address & 0x3FFFF) >> 4);
}

// High word: 128-byte swizzle, 1024 bytes between groups of eight rows.
constexpr uint32_t kDescriptorHigh = 1u << 30 | 1024 >> 4;

#define SEER_WGMMA_N64(TYPE, TRANS)                                                                \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\n"                                   \
      "mov.b64 b, {%36, %38};\n"                                                                   \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                  \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"             \
      "}, {%32, %33, %34, %35}, b, p, 1, 1, " TRANS ";\n}\n"                                       \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),        \
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),    \
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), \
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), \
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])                                         \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kDescriptorHigh))

#define SEER_WGMMA_N96(TYPE, TRANS)                                                                \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %53, 0;\n"                                   \
      "mov.b64 b, {%52, %54};\n"                                                                   \
      "wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE                                  \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"             \
      "}, {%48, %49, %50, %51}, b, p, 1, 1, " TRANS ";\n}\n"                                       \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),        \
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),    \
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), \
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), \
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), \
        "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]), \
        "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47])               \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kDescriptorHigh))

#define SEER_WGMMA_N128(TYPE, TRANS)                                                               \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %69, 0;\n"                                   \
      "mov.b64 b, {%68, %70};\n"                                                                   \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "           \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"             \
      "}, {%64, %65, %66, %67}, b, p, 1, 1, " TRANS ";\n}\n"                                       \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),        \
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),    \
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), \
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), \
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), \
        "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]), \
        "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]), \
        "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), \
        "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), \
        "+f"(c[63])                                                                                \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate), "n"(kDescriptorHigh))

// c[64 x N] (+)= a[64 x 16] B, with B stored [N, 16] (or [16, N] where kTransposed).
template <class Element, bool kTransposed, int kRegs>
__device__ __forceinline__ void wgmma_rs(float (&c)[kRegs], const uint32_t (&a)[4], uint32_t b,
                                         int accumulate) {
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

#define SEER_WGMMA_SS_N64(TYPE)                                                                    \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %34, 0;\n"                                \
      "mov.b64 a, {%32, %35};\nmov.b64 b, {%33, %35};\n"                                           \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                  \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"             \
      "}, a, b, p, 1, 1, 0, 0;\n}\n"                                                               \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),        \
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),    \
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), \
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), \
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])                                         \
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

#undef SEER_WGMMA_N64
#undef SEER_WGMMA_SS_N64
#undef SEER_WGMMA_N96
#undef SEER_WGMMA_N128

}  // namespace seer::ptx
