#pragma once
// Whether a kernel may read or write several elements of a tensor at once.

#include <cstdint>
#include <string>

#include "seer/base/error.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Whether all of these addresses are multiples of 16 bytes; null is.
template <class... Elements>
bool are_aligned(const Elements*... x) {
  return ((reinterpret_cast<uintptr_t>(x) % 16 == 0) && ...);
}

// Empty, or why `unit` 16-bit elements at a time cannot be read or written together.
template <class Pointer>
std::string why_not_aligned(const char* name, const Strided<Pointer>& x, int64_t tokens, int heads,
                            int unit) {
  const auto address = reinterpret_cast<uintptr_t>(x.data);
  if (address % (2 * unit) != 0) {
    return message(name, " begins ", address % (2 * unit), " bytes behind a multiple of ",
                   2 * unit);
  }
  if (tokens > 1 && x.token_stride % unit != 0) {
    return message(name, " has a token stride of ", x.token_stride, ", want a multiple of ", unit);
  }
  if (heads > 1 && x.head_stride % unit != 0) {
    return message(name, " has a head stride of ", x.head_stride, ", want a multiple of ", unit);
  }
  return "";
}

}  // namespace seer::kernels
