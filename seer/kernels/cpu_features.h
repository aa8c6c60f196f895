#pragma once
// What this CPU can do that the choice of a kernel or a dtype depends on.

namespace seer::kernels {

// AVX-512 with bf16 dot products (vdpbf16ps), and an operating system that saves its registers.
bool cpu_has_bf16_dot();

}  // namespace seer::kernels
