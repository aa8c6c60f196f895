#pragma once
// Elements as the pooling takes them: compared in pairs where they have 16 bits, summed in f32.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace seer::kernels {

// What is compared at once: two elements of 16 bits, or one f32.
template <class Element>
struct UnitOf {
  using Type = float;
};
template <>
struct UnitOf<__half> {
  using Type = __half2;
};
template <>
struct UnitOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

// NaN where one of the two is.
__device__ __forceinline__ float larger(float a, float b) {
  float out;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}
__device__ __forceinline__ float smaller(float a, float b) {
  float out;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}
template <class Pair>
__device__ __forceinline__ Pair larger(Pair a, Pair b) {
  return __hmax2_nan(a, b);
}
template <class Pair>
__device__ __forceinline__ Pair smaller(Pair a, Pair b) {
  return __hmin2_nan(a, b);
}

__device__ __forceinline__ void widen(float x, float (&out)[1]) {
  out[0] = x;
}
__device__ __forceinline__ void widen(__half2 x, float (&out)[2]) {
  const float2 two = __half22float2(x);
  out[0] = two.x, out[1] = two.y;
}
__device__ __forceinline__ void widen(__nv_bfloat162 x, float (&out)[2]) {
  const auto bits = reinterpret_cast<const uint32_t&>(x);
  out[0] = __uint_as_float(bits << 16), out[1] = __uint_as_float(bits & 0xffff0000u);
}

template <class Unit>
__device__ __forceinline__ Unit both(float x) {
  if constexpr (std::is_same_v<Unit, float>)
    return x;
  else if constexpr (std::is_same_v<Unit, __half2>)
    return __float2half2_rn(x);
  else
    return __float2bfloat162_rn(x);
}

}  // namespace seer::kernels
