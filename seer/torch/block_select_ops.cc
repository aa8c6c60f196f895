// seer::block_select. Its outputs are integers: there is nothing to differentiate.

#include <ATen/ops/empty.h>

#include <string>
#include <vector>

#include "seer/kernels/block_select/block_select.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

struct BlockSelect {
  static constexpr char kName[] = "seer::block_select";
  // `list` holds -1 between the rows' blocks. prompt_blocks: key blocks of the complete prompt while it
  // comes in chunks (0: the sequences are complete); what chunks off the grid of blocks mean is said in
  // kernels/block_select/params.h.
  static constexpr char kSchema[] =
      "(Tensor scores, Tensor cu_q, Tensor cu_k, Tensor cu_rows, int block, str rule, "
      "float[] strength, int sink_blocks=0, int local_blocks=0, int last_dense_rows=0, "
      "int prompt_blocks=0) -> (Tensor begin, Tensor count, Tensor list)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, int64_t, c10::string_view,
                           at::ArrayRef<double>, int64_t, int64_t, int64_t, int64_t);

  const at::Tensor &scores, &cu_q, &cu_k, &cu_rows;
  int64_t block;
  c10::string_view rule;
  at::ArrayRef<double> strength;
  int64_t sink_blocks, local_blocks, last_dense_rows, prompt_blocks;

  // What the host knows without the contents of tensors; `strengths` gets a value per head and must outlive
  // the parameters. The length of the list depends on sizes and settings alone. It is not a formula of
  // symbolic sizes, so a compiled graph is specialised on them.
  kernels::BlockSelectParams host_params(std::vector<double>& strengths) const {
    check_same_device(kName,
                      {{"scores", scores}, {"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
    check_scores(kName, {"scores", scores});
    check_prefix_forms(kName, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
    check_block(kName, block);
    const auto size = [](const SymInt& x) { return x.guard_int(__FILE__, __LINE__); };
    const int64_t heads = size(scores.sym_size(0));
    const auto given = static_cast<int64_t>(strength.size());
    TORCH_CHECK(given == 1 || (given > 0 && given == heads), kName, ": ", given,
                " strengths, want 1 or one for each of ", heads, " heads");
    check_count(kName, "prompt_blocks", prompt_blocks, kernels::kMostBlocks);
    check_count(kName, "sink_blocks", sink_blocks, kernels::kMostBlocks);
    check_count(kName, "local_blocks", local_blocks, kernels::kMostBlocks);
    check_count(kName, "last_dense_rows", last_dense_rows, kernels::kMostBlocks);
    strengths.assign(heads, strength[0]);
    if (given > 1) strengths = strength.vec();
    kernels::BlockSelectParams p{};
    p.strength = strengths.data();
    p.num_seqs = static_cast<int>(size(cu_q.sym_size(0)) - 1);
    p.num_heads = static_cast<int>(heads);
    p.num_rows = size(scores.sym_size(1));
    p.num_blocks = size(scores.sym_size(2));
    p.block = static_cast<int>(block);
    p.prompt_blocks = prompt_blocks;
    p.rule = kernels::select_rule(rule).rule;
    p.forced = {static_cast<int>(sink_blocks), static_cast<int>(local_blocks),
                static_cast<int>(last_dense_rows)};
    p.capacity = kernels::block_select_capacity(p);
    return p;
  }

  Result empty_lists(const kernels::BlockSelectParams& p) const {
    const std::vector<int64_t> rows{p.num_heads, p.num_rows};
    return {at::empty(rows, scores.options().dtype(at::kLong)),
            at::empty(rows, scores.options().dtype(at::kInt)),
            at::empty({p.capacity}, scores.options().dtype(at::kInt))};
  }

  Result form() const {
    std::vector<double> strengths;
    return empty_lists(host_params(strengths));
  }

  // On a GPU scores are not looked at: that would wait for the device.
  Result run() const {
    std::vector<double> strengths;
    auto p = host_params(strengths);
    const at::Tensor own_scores = scores.contiguous();
    check_prefix(kName, {"cu_q", cu_q}, -1);
    check_prefix(kName, {"cu_k", cu_k}, -1);
    check_block_prefix(kName, {"cu_rows", cu_rows}, cu_q, p.block, p.num_rows);
    check_longest(kName, cu_k, p.block, "the scores", p.num_blocks);
    auto [begin, count, list] = empty_lists(p);
    p.scores = own_scores.const_data_ptr<float>();
    p.cu_q = int_data(cu_q);
    p.cu_k = int_data(cu_k);
    p.cu_rows = int_data(cu_rows);
    p.begin = begin.mutable_data_ptr<int64_t>();
    p.count = count.mutable_data_ptr<int32_t>();
    p.list = list.mutable_data_ptr<int32_t>();
    const Queue queue(scores);
    at::Tensor workspace;
    p.workspace_bytes = kernels::block_select_workspace(p, queue.device);
    if (p.workspace_bytes > 0) {
      workspace = at::empty({p.workspace_bytes}, scores.options().dtype(at::kByte));
      p.workspace = workspace.mutable_data_ptr();
    }
    kernels::block_select(p, queue.device, queue.stream);
    return {begin, count, list};
  }

  void refuse() const { refuse_tangent(kName, {{"scores", scores}}); }
};

const RegisteredOp<BlockSelect> kBlockSelect;

}  // namespace

BlockLists block_select(const at::Tensor& scores, const Ragged& ragged, const Selection& s) {
  auto [begin, count, list] = call<BlockSelect>(
      scores, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.one_block(BlockSelect::kName),
      s.rule, s.strength, s.sink_blocks, s.local_blocks, s.last_dense_rows, s.prompt_blocks);
  return {begin, count, list};
}

}  // namespace seer::torch_ops
