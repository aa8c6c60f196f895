#include "seer/kernels/block_select/block_select.h"

#include "seer/kernels/block_select/cpu.h"
#include "seer/kernels/block_select/row_rule.h"

namespace seer::kernels {
namespace {

struct RuleName {
  SelectRule rule;
  const char* name;
  double largest;  // strength is 0 ... largest
};

constexpr RuleName kRules[] = {{SelectRule::nz_ratio, "nz_ratio", 1},
                               {SelectRule::threshold, "threshold", 1},
                               {SelectRule::top_p, "top_p", 1},
                               {SelectRule::row_budget, "row_budget", 1e15},
                               {SelectRule::head_budget, "head_budget", 1}};

void run_cpu(const BlockSelectParams& p, void*) {
  block_select_cpu(p);
}

constexpr Impl<BlockSelectParams> kImpls[] = {{"cpu", why_not_cpu, run_cpu}};

void check(const BlockSelectParams& p) {
  SEER_CHECK(p.num_heads > 0 && p.block > 0, "block_select: ", p.num_heads, " heads, block ",
             p.block, ", want at least 1 each");
  const SelectForced& f = p.forced;
  SEER_CHECK(f.sink_blocks >= 0 && f.local_blocks >= 0 && f.last_dense_rows >= 0,
             "block_select: ", f.sink_blocks, " sink blocks, ", f.local_blocks, " local blocks, ",
             f.last_dense_rows, " last dense rows, want none below 0");
  SEER_CHECK(p.prompt_blocks == 0 || p.prompt_blocks >= p.num_blocks, "block_select: a prompt of ",
             p.prompt_blocks, " key blocks cannot hold ", p.num_blocks,
             "; give the blocks of the complete prompt");
  for (const RuleName& rule : kRules) {
    if (rule.rule != p.rule) continue;
    for (int h = 0; h < p.num_heads; ++h) {
      SEER_CHECK(p.strength[h] >= 0 && p.strength[h] <= rule.largest,
                 "block_select: the strength of ", rule.name, " is ", p.strength[h], " for head ",
                 h, ", want 0 ... ", rule.largest);
    }
  }
}

}  // namespace

std::span<const Impl<BlockSelectParams>> block_select_impls() {
  return kImpls;
}

SelectRule select_rule_from_name(const std::string& name) {
  std::string list;
  for (const RuleName& rule : kRules) {
    if (name == rule.name) return rule.rule;
    list += std::string(list.empty() ? "" : ", ") + rule.name;
  }
  fail("block_select: unknown rule \"", name, "\", want one of ", list);
}

int64_t block_select_capacity(const BlockSelectParams& p) {
  check(p);
  // Where a chunk starts off the grid of blocks, its last two rows can end in the same block.
  const int64_t dense = p.forced.last_dense_rows > 0 ? int64_t{p.forced.last_dense_rows} + 1 : 0;
  const int64_t dense_rows = std::min(p.num_rows, p.num_seqs * dense);
  int64_t sum = 0;
  for (int h = 0; h < p.num_heads; ++h) {
    const int64_t bound = row_bound(p, h);
    sum += (p.num_rows - dense_rows) * bound + dense_rows * p.num_blocks;
  }
  return sum;
}

void block_select(const BlockSelectParams& p, const Device& device, void* stream) {
  const int64_t want = block_select_capacity(p);
  SEER_CHECK(p.capacity >= want, "block_select: the list has room for ", p.capacity,
             " entries, want ", want);
  select<BlockSelectParams>("block_select", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
