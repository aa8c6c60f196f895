#include "seer/kernels/cpu_features.h"

namespace seer::kernels {

// libgcc's check covers cpuid and xgetbv, so the operating system's side as well.
bool cpu_has_bf16_dot() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

}  // namespace seer::kernels
