// seer::block_select. Its outputs are integers: there is nothing to differentiate.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "seer/kernels/block_select/block_select.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

using Lists = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

constexpr const char* kSelectOp = "seer::block_select";

// The settings of a call as its schema has them.
struct Settings {
  int64_t block;
  c10::string_view rule;
  at::ArrayRef<double> strength;
  int64_t sink_blocks, local_blocks, last_dense_rows, prompt_blocks;
};

// What the host knows without the prefix sums. `strength` gets a value per head and must outlive p.
kernels::BlockSelectParams host_params(const Settings& s, int64_t heads, int64_t rows,
                                       int64_t blocks, int64_t seqs,
                                       std::vector<double>& strength) {
  check_block(kSelectOp, s.block);
  const auto strengths = static_cast<int64_t>(s.strength.size());
  TORCH_CHECK(strengths == 1 || (strengths > 0 && strengths == heads), kSelectOp, ": ", strengths,
              " strengths, want 1 or one for each of ", heads, " heads");
  check_count(kSelectOp, "prompt_blocks", s.prompt_blocks, kernels::kMostBlocks);
  for (const int64_t count : {s.sink_blocks, s.local_blocks, s.last_dense_rows}) {
    TORCH_CHECK(count >= 0 && count <= 1 << 24, kSelectOp, ": ", count,
                " forced blocks or rows, want 0 to 16777216");
  }
  strength.assign(heads, s.strength[0]);
  if (s.strength.size() > 1) strength = s.strength.vec();
  kernels::BlockSelectParams p{};
  p.strength = strength.data();
  p.num_seqs = static_cast<int>(seqs);
  p.num_heads = static_cast<int>(heads);
  p.num_rows = rows;
  p.num_blocks = blocks;
  p.block = static_cast<int>(s.block);
  p.prompt_blocks = s.prompt_blocks;
  p.rule = kernels::select_rule_from_name(std::string(s.rule));
  p.forced = {static_cast<int>(s.sink_blocks), static_cast<int>(s.local_blocks),
              static_cast<int>(s.last_dense_rows)};
  p.capacity = kernels::block_select_capacity(p);
  return p;
}

Lists empty_lists(const kernels::BlockSelectParams& p, const at::Tensor& scores) {
  const std::vector<int64_t> rows{p.num_heads, p.num_rows};
  return {at::empty(rows, scores.options().dtype(at::kLong)),
          at::empty(rows, scores.options().dtype(at::kInt)),
          at::empty({p.capacity}, scores.options().dtype(at::kInt))};
}

// Form and settings; `strength` as of host_params(), whose result it returns. The length of the list
// depends on the sizes and settings alone. It is not a formula of symbolic sizes, so a compiled graph
// is specialised on them.
kernels::BlockSelectParams check_select_form(const at::Tensor& scores, const at::Tensor& cu_q,
                                             const at::Tensor& cu_k, const at::Tensor& cu_rows,
                                             const Settings& settings,
                                             std::vector<double>& strength) {
  check_same_device(kSelectOp,
                    {{"scores", scores}, {"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  check_scores(kSelectOp, {"scores", scores});
  check_prefix_forms(kSelectOp, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  const auto size = [](const SymInt& x) { return x.guard_int(__FILE__, __LINE__); };
  return host_params(settings, size(scores.sym_size(0)), size(scores.sym_size(1)),
                     size(scores.sym_size(2)), size(cu_q.sym_size(0)) - 1, strength);
}

// On a GPU scores are not looked at: that would wait for the device.
Lists select(const at::Tensor& scores_in, const at::Tensor& cu_q, const at::Tensor& cu_k,
             const at::Tensor& cu_rows, int64_t block, c10::string_view rule,
             at::ArrayRef<double> strength, int64_t sink_blocks, int64_t local_blocks,
             int64_t last_dense_rows, int64_t prompt_blocks) {
  std::vector<double> strengths;
  auto p = check_select_form(
      scores_in, cu_q, cu_k, cu_rows,
      {block, rule, strength, sink_blocks, local_blocks, last_dense_rows, prompt_blocks},
      strengths);
  const at::Tensor scores = scores_in.contiguous();
  check_prefix(kSelectOp, {"cu_q", cu_q}, -1);
  check_prefix(kSelectOp, {"cu_k", cu_k}, -1);
  check_block_prefix(kSelectOp, {"cu_rows", cu_rows}, cu_q, block, scores.size(1));
  check_longest(kSelectOp, cu_k, block, "the scores", scores.size(2));
  auto [begin, count, list] = empty_lists(p, scores);
  p.scores = scores.const_data_ptr<float>();
  p.cu_q = int_data(cu_q);
  p.cu_k = int_data(cu_k);
  p.cu_rows = int_data(cu_rows);
  p.begin = begin.mutable_data_ptr<int64_t>();
  p.count = count.mutable_data_ptr<int32_t>();
  p.list = list.mutable_data_ptr<int32_t>();
  const c10::DeviceGuard on_device(scores.device());
  const Queue queue = queue_of(scores);
  at::Tensor workspace;
  p.workspace_bytes = kernels::block_select_workspace(p, queue.device);
  if (p.workspace_bytes > 0) {
    workspace = at::empty({p.workspace_bytes}, scores.options().dtype(at::kByte));
    p.workspace = workspace.mutable_data_ptr();
  }
  kernels::block_select(p, queue.device, queue.stream);
  return {begin, count, list};
}

Lists select_meta(const at::Tensor& scores, const at::Tensor& cu_q, const at::Tensor& cu_k,
                  const at::Tensor& cu_rows, int64_t block, c10::string_view rule,
                  at::ArrayRef<double> strength, int64_t sink_blocks, int64_t local_blocks,
                  int64_t last_dense_rows, int64_t prompt_blocks) {
  std::vector<double> strengths;
  const auto p = check_select_form(
      scores, cu_q, cu_k, cu_rows,
      {block, rule, strength, sink_blocks, local_blocks, last_dense_rows, prompt_blocks},
      strengths);
  return empty_lists(p, scores);
}

Lists call(const at::Tensor& scores, const at::Tensor& cu_q, const at::Tensor& cu_k,
           const at::Tensor& cu_rows, int64_t block, c10::string_view rule,
           at::ArrayRef<double> strength, int64_t sink_blocks, int64_t local_blocks,
           int64_t last_dense_rows, int64_t prompt_blocks) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kSelectOp, "").typed<decltype(select)>();
  return op.call(scores, cu_q, cu_k, cu_rows, block, rule, strength, sink_blocks, local_blocks,
                 last_dense_rows, prompt_blocks);
}

Lists select_autograd(const at::Tensor& scores, const at::Tensor& cu_q, const at::Tensor& cu_k,
                      const at::Tensor& cu_rows, int64_t block, c10::string_view rule,
                      at::ArrayRef<double> strength, int64_t sink_blocks, int64_t local_blocks,
                      int64_t last_dense_rows, int64_t prompt_blocks) {
  refuse_tangent(kSelectOp, {{"scores", scores}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(scores, cu_q, cu_k, cu_rows, block, rule, strength, sink_blocks, local_blocks,
              last_dense_rows, prompt_blocks);
}

}  // namespace

void check_selection(const Selection& selection) {
  std::vector<double> strength;
  host_params({/*block=*/64, selection.rule, selection.strength, selection.sink_blocks,
               selection.local_blocks, selection.last_dense_rows, /*prompt_blocks=*/0},
              /*heads=*/static_cast<int64_t>(selection.strength.size()), /*rows=*/1, /*blocks=*/1,
              /*seqs=*/1, strength);
}

BlockLists block_select(const at::Tensor& scores, const Ragged& ragged,
                        const Selection& selection) {
  auto [begin, count, list] =
      call(scores, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.one_block(kSelectOp),
           selection.rule, selection.strength, selection.sink_blocks, selection.local_blocks,
           selection.last_dense_rows, selection.prompt_blocks);
  return {begin, count, list};
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("block_select", seer::torch_ops::select);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("block_select", seer::torch_ops::select);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("block_select", seer::torch_ops::select_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("block_select", seer::torch_ops::select_autograd);
}
