#include "seer/kernels/cpu_features.h"

#include <hwy/targets.h>

namespace seer::kernels {
namespace {

bool avx2_at_most = false;

}  // namespace

// libgcc's check covers cpuid and xgetbv, so the operating system's side as well.
bool cpu_has_bf16_dot() {
  return !avx2_at_most && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

void limit_cpu_to_avx2() {
  avx2_at_most = true;
  hwy::DisableTargets(HWY_AVX2 - 1);  // better targets have lower bits
}

}  // namespace seer::kernels
