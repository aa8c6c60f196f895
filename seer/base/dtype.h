#pragma once
// Element types that tensors may have, known at run time.

#include <cstddef>

namespace seer {

// f64 is of references alone: gradients are checked in it.
enum class DType { f32, f16, bf16, f64 };

constexpr const char* name(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::f64: return "f64";
  }
  return "?";
}

constexpr size_t size_of(DType t) {
  return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2;
}

}  // namespace seer
