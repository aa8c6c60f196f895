#include "seer/kernels/block_select/block_select.h"

#include "seer/kernels/block_select/cpu.h"
#include "seer/kernels/block_select/gpu.h"
#include "seer/kernels/block_select/row_rule.h"
#include "seer/kernels/size_limits.h"

namespace seer::kernels {
namespace {

void run_cpu(const BlockSelectParams& p, void*) {
  block_select_cpu(p);
}

constexpr Impl<BlockSelectParams> kImpls[] = {{"sm80", kSm80, SEER_IF_CUDA(block_select_sm80)},
                                              {"cpu", kCpu, run_cpu}};

void check(const BlockSelectParams& p) {
  SEER_CHECK(p.num_heads > 0 && p.block > 0, "block_select: ", p.num_heads, " heads, block ",
             p.block, ", want at least 1 each");
  check_most("block_select", "heads", p.num_heads, kMostHeads);
  check_most("block_select", "rows", p.num_rows, kMostTokens);
  check_most("block_select", "key blocks", p.num_blocks, kMostBlocks);
  const SelectForced& f = p.forced;
  SEER_CHECK(f.sink_blocks >= 0 && f.local_blocks >= 0 && f.last_dense_rows >= 0,
             "block_select: ", f.sink_blocks, " sink blocks, ", f.local_blocks, " local blocks, ",
             f.last_dense_rows, " last dense rows, want none below 0");
  SEER_CHECK(p.prompt_blocks == 0 || p.prompt_blocks >= p.num_blocks, "block_select: a prompt of ",
             p.prompt_blocks, " key blocks cannot hold ", p.num_blocks,
             "; give the blocks of the complete prompt");
  const SelectRuleInfo& rule = select_rule(p.rule);
  for (int h = 0; h < p.num_heads; ++h) {
    SEER_CHECK(p.strength[h] >= 0 && p.strength[h] <= rule.largest,
               "block_select: the strength of ", rule.name, " is ", p.strength[h], " for head ", h,
               ", want 0 ... ", rule.largest);
  }
}

}  // namespace

std::span<const Impl<BlockSelectParams>> block_select_impls() {
  return kImpls;
}

int64_t block_select_capacity(const BlockSelectParams& p) {
  check(p);
  int64_t sum = 0;
  for (int h = 0; h < p.num_heads; ++h) sum += head_capacity(p, row_bound(p, h));
  return sum;
}

int64_t block_select_workspace(const BlockSelectParams& p, const Device& device) {
#ifdef SEER_CUDA
  if (device.sm != 0 && p.rule == SelectRule::head_budget) {
    return sm80::budget_workspace(p.num_heads, p.num_seqs, p.num_rows);
  }
#endif
  (void)p, (void)device;
  return 0;
}

void block_select(const BlockSelectParams& p, const Device& device, void* stream) {
  const int64_t want = block_select_capacity(p);
  SEER_CHECK(p.capacity >= want, "block_select: the list has room for ", p.capacity,
             " entries, want ", want);
  const int64_t space = block_select_workspace(p, device);
  SEER_CHECK(p.workspace_bytes >= space, "block_select: the workspace has ", p.workspace_bytes,
             " bytes, want ", space);
  select<BlockSelectParams>("block_select", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
