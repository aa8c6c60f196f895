#include "seer/kernels/gate_loss/gate_loss.h"

#include "seer/kernels/gate_loss/cpu.h"
#include "seer/kernels/gate_loss/gpu.h"
#include "seer/kernels/size_limits.h"

namespace seer::kernels {
namespace {

void run_cpu(const GateLossParams& p, void*) {
  gate_loss_cpu(p);
}

constexpr Impl<GateLossParams> kImpls[] = {{"sm80", kSm80, SEER_IF_CUDA(gate_loss_sm80)},
                                           {"cpu", kCpu, run_cpu}};

}  // namespace

std::span<const Impl<GateLossParams>> gate_loss_impls() {
  return kImpls;
}

void gate_loss(const GateLossParams& p, const Device& device, void* stream) {
  SEER_CHECK(p.skip >= 0 && p.skip < 1, "gate_loss: skip is ", p.skip,
             ", want a part of the rows, 0 or more and below 1");
  SEER_CHECK(p.num_heads > 0, "gate_loss: ", p.num_heads, " heads, want at least 1");
  check_most("gate_loss", "heads", p.num_heads, kMostHeads);
  SEER_CHECK(device.sm == 0 || p.row_losses != nullptr || p.num_rows == 0,
             "gate_loss: on a GPU the call needs row_losses, one for each head and row");
  select<GateLossParams>("gate_loss", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
