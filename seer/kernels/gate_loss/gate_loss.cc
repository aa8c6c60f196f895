#include "seer/kernels/gate_loss/gate_loss.h"

#include "seer/kernels/gate_loss/cpu.h"

namespace seer::kernels {
namespace {

void run_cpu(const GateLossParams& p, void*) {
  gate_loss_cpu(p);
}

constexpr Impl<GateLossParams> kImpls[] = {{"cpu", why_not_cpu, run_cpu}};

}  // namespace

std::span<const Impl<GateLossParams>> gate_loss_impls() {
  return kImpls;
}

void gate_loss(const GateLossParams& p, const Device& device, void* stream) {
  SEER_CHECK(p.skip >= 0 && p.skip < 1, "gate_loss: skip is ", p.skip,
             ", want a part of the rows, 0 or more and below 1");
  SEER_CHECK(p.num_heads > 0, "gate_loss: ", p.num_heads, " heads, want at least 1");
  select<GateLossParams>("gate_loss", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
