#pragma once
// Single elements of tensors whose type is known at run time: exact loads, stores that round to
// nearest even.

#include <bit>
#include <cstdint>
#include <cstring>

#include "seer/base/dtype.h"

namespace seer::kernels {

inline float float_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

inline uint16_t bf16_from_float(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);  // stays a NaN
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float float_from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal
    const float x = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -x : x;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

inline uint16_t f16_from_float(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 31 << 15;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000) {  // subnormal: adding 0.5 lets the float unit do the rounding
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

inline float load_element(DType dtype, const void* data, int64_t index) {
  if (dtype == DType::f32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::bf16 ? float_from_bf16(bits) : float_from_f16(bits);
}

inline void store_element(DType dtype, void* data, int64_t index, float x) {
  if (dtype == DType::f32) {
    static_cast<float*>(data)[index] = x;
  } else {
    static_cast<uint16_t*>(data)[index] =
        dtype == DType::bf16 ? bf16_from_float(x) : f16_from_float(x);
  }
}

// The same for references, which take f64, too.
inline double load_double(DType dtype, const void* data, int64_t index) {
  return dtype == DType::f64 ? static_cast<const double*>(data)[index]
                             : load_element(dtype, data, index);
}
inline void store_double(DType dtype, void* data, int64_t index, double x) {
  if (dtype == DType::f64) {
    static_cast<double*>(data)[index] = x;
  } else {
    store_element(dtype, data, index, static_cast<float>(x));
  }
}

// The address of element `index`.
inline const void* element_at(DType dtype, const void* data, int64_t index) {
  return static_cast<const char*>(data) + index * static_cast<int64_t>(size_of(dtype));
}
inline void* element_at(DType dtype, void* data, int64_t index) {
  return static_cast<char*>(data) + index * static_cast<int64_t>(size_of(dtype));
}

}  // namespace seer::kernels
