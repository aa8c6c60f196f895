#pragma once
// What this CPU can do that the choice of a kernel or a dtype depends on.

namespace seer::kernels {

// AVX-512 with bf16 dot products (vdpbf16ps), and an operating system that saves its registers.
bool cpu_has_bf16_dot();

// From here on, kernels of this process use AVX2 at most, as on a CPU without AVX-512. Call it before
// the first kernel runs.
void limit_cpu_to_avx2();

}  // namespace seer::kernels
