#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/block_sparse_attn/gpu.h"
#include "seer/kernels/block_sparse_attn/lists.h"
#include "seer/kernels/block_sparse_attn/reference.h"
#include "seer/kernels/block_sparse_attn/sm90/parts.h"
#include "seer/kernels/cpu_features.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

void run_cpu(const Params& p, void*) {
  block_sparse_attn_cpu(p, tile_engine(p.dtype, cpu_has_bf16_dot()));
}

void run_reference(const Params& p, void*) {
  check_sequences("block_sparse_attn", p, p.lists.cu_rows, p.lists.num_rows, p.lists.block_q);
  block_sparse_attn_reference(p);
}

// What every GPU kernel asks for; kOwn gives what only this one does.
template <std::string (*kOwn)(const Params&)>
std::string why_not_gpu(const Params& p) {
  std::string reason = why_not_on_gpus(p);
  if (reason.empty()) reason = why_not_block("block_q", p.lists.block_q);
  if (reason.empty()) reason = why_not_block("block_k", p.lists.block_k);
  return reason.empty() ? kOwn(p) : reason;
}

constexpr Impl<Params> kImpls[] = {
    {"sm90", kSm90, SEER_IF_CUDA(block_sparse_attn_sm90),
     SEER_IF_CUDA(why_not_gpu<block_sparse_attn_sm90_why_not>)},
    {"sm80", kSm80, SEER_IF_CUDA(block_sparse_attn_sm80),
     SEER_IF_CUDA(why_not_gpu<block_sparse_attn_sm80_why_not>), "slower"},
    {"cpu", kCpu, run_cpu, block_sparse_attn_cpu_why_not},
    {"reference", kCpu, run_reference, [](const Params& p) { return why_not_reference(p); }}};

}  // namespace

std::span<const Impl<Params>> block_sparse_attn_impls() {
  return kImpls;
}

// Only the sm90 forward cuts lists.
int block_sparse_attn_parts(const Params& p, const Device& device) {
  return kSm90.include(device) ? sm90::choose_parts(p, device.num_sms) : 1;
}

int64_t block_sparse_attn_partials(const Params& p) {
  if (p.num_parts <= 1) return 0;
  const int64_t queries = p.lists.num_rows * p.lists.block_q * p.num_q_heads * p.num_parts;
  return queries * (p.head_dim + 1);
}

void block_sparse_attn(const Params& p, const Device& device, void* stream) {
  constexpr const char* kOp = "block_sparse_attn";
  check_attention(kOp, p, /*takes_f64=*/true);
  check_lists(kOp, p, p.lists);
  SEER_CHECK(p.num_parts <= 1 || p.partials, kOp, ": ", p.num_parts,
             " pieces of a list, and no memory for them");
  if (p.total_q == 0) return;
  select<Params>(kOp, kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
