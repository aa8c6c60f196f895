#pragma once
// A [tokens, heads, features] tensor as projections leave it: features contiguous, the rest strided.

#include <cstdint>

namespace seer::kernels {

template <class Pointer>
struct Strided {
  Pointer data;
  int64_t token_stride;  // elements
  int64_t head_stride;   // elements
};

using StridedIn = Strided<const void*>;
using StridedOut = Strided<void*>;

}  // namespace seer::kernels
