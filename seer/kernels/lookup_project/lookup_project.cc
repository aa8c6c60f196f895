#include "seer/kernels/lookup_project/lookup_project.h"

#include <algorithm>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/lookup_project/gpu.h"

namespace seer::kernels {
namespace {

using Params = LookupProjectParams;

constexpr const char* kOp = "lookup_project";

std::string why_not_sm80(const Params& p) {
  if (p.dtype != DType::bf16 && p.dtype != DType::f16) {
    return message("dtype is ", name(p.dtype), ", want bf16 or f16");
  }
  if (p.head_dim != 64 && p.head_dim != 96 && p.head_dim != 128) {
    return message("head_dim is ", p.head_dim, ", want 64, 96 or 128");
  }
  if (p.rank != 16 && p.rank != 32 && p.rank != 64) {
    return message("rank is ", p.rank, ", want 16, 32 or 64");
  }
  for (const auto& side : p.sides) {
    // Heads are not known here: as many as one stride holds.
    std::string reason = why_not_aligned("x", side.x, side.num_tokens, 2, 8);
    if (!reason.empty()) return reason;
  }
  return "";
}

constexpr Impl<Params> kImpls[] = {
    {"sm80", kSm80, SEER_IF_CUDA(lookup_project_sm80), SEER_IF_CUDA(why_not_sm80)}};

}  // namespace

std::span<const Impl<Params>> lookup_project_impls() {
  return kImpls;
}

bool takes_lookup_project(const Params& p, const Device& device) {
  return std::any_of(std::begin(kImpls), std::end(kImpls),
                     [&](const auto& impl) { return impl.run && impl.why_not(p, device).empty(); });
}

void lookup_project(const Params& p, const Device& device, void* stream) {
  select<Params>(kOp, kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
