// seer::sparse_attention, made of other ops, and the steps that are watched in it.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>

#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/steps.h"

namespace seer::torch_ops {
namespace {

thread_local StepWatcher* current_watcher = nullptr;

// Not a kernel of its own for any device: autograd and fake tensors see the ops that it calls.
struct SparseAttention {
  static constexpr char kName[] = "seer::sparse_attention";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor v, Tensor q_gate, Tensor k_gate, Tensor cu_q, Tensor cu_k, "
      "Tensor cu_rows, Tensor cu_blocks, SymInt num_blocks, int block, float scale, bool causal, "
      "str rule, float[] strength, int sink_blocks=0, int local_blocks=0, int last_dense_rows=0, "
      "int prompt_blocks=0, bool forced_within=False, Tensor? lookup_q=None, Tensor? "
      "lookup_k=None, "
      "Tensor? lookup_heads=None) "
      "-> (Tensor o, Tensor lse, Tensor begin, Tensor count, Tensor list)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           TensorIn, TensorIn, SymInt, int64_t, double, bool, c10::string_view,
                           at::ArrayRef<double>, int64_t, int64_t, int64_t, int64_t, bool,
                           OptionalIn, OptionalIn, OptionalIn);

  const at::Tensor &q, &k, &v, &q_gate, &k_gate, &cu_q, &cu_k, &cu_rows, &cu_blocks;
  SymInt num_blocks;
  int64_t block;
  double scale;
  bool causal;
  c10::string_view rule;
  at::ArrayRef<double> strength;
  int64_t sink_blocks, local_blocks, last_dense_rows, prompt_blocks;
  bool forced_within;
  const OptionalTensor &lookup_q, &lookup_k, &lookup_heads;

  Result run() const {
    Ragged ragged{.cu_q = cu_q, .cu_k = cu_k, .cu_rows = cu_rows, .cu_blocks = cu_blocks};
    ragged.num_blocks = num_blocks.guard_int(__FILE__, __LINE__);
    ragged.block = ragged.block_q = static_cast<int>(block);
    if (lookup_q) ragged.num_rows = q_gate.sym_size(0).guard_int(__FILE__, __LINE__);
    const BlockLists lists = choose(ragged);
    const auto [o, lse] = block_sparse_attn(q, k, v, ragged, lists, scale, causal);
    return {o, lse, lists.begin, lists.count, lists.list};
  }

  BlockLists choose(const Ragged& ragged) const {
    const at::NoGradGuard no_grad;
    const int num_given = lookup_q.has_value() + lookup_k.has_value() + lookup_heads.has_value();
    TORCH_CHECK(num_given == 0 || num_given == 3, kName,
                ": lookup_q, lookup_k and lookup_heads come together");
    at::Tensor scores = attn_gate_score(q_gate, k_gate, ragged);
    if (num_given == 3) {
      scores =
          with_scores_of(*lookup_heads, lookup_score(*lookup_q, *lookup_k, ragged, scale), scores);
    }
    return choose_blocks(scores, ragged,
                         {std::string(rule), strength.vec(), sink_blocks, local_blocks,
                          last_dense_rows, prompt_blocks, forced_within});
  }
};

const RegisteredOp<SparseAttention> kSparseAttention;

}  // namespace

StepWatcher* StepWatcher::current() {
  return current_watcher;
}
StepWatch::StepWatch(StepWatcher& watcher) : before_(current_watcher) {
  current_watcher = &watcher;
}
StepWatch::~StepWatch() {
  enter_step(Step::none);
  current_watcher = before_;
}
void enter_step(Step step) {
  if (current_watcher != nullptr) current_watcher->enter(step);
}

at::Tensor forced_first(const at::Tensor& scores, const Selection& selection) {
  // Added, not set: what is masked stays so, and NaN is still found.
  constexpr double kAbove = 1e30;
  at::Tensor out = scores.clone(at::MemoryFormat::Contiguous);
  const int64_t rows = out.size(1), blocks = out.size(2);
  const int64_t sinks = std::min(selection.sink_blocks, blocks);
  if (sinks > 0) out.narrow(2, 0, sinks).add_(kAbove);
  const int64_t before = blocks - rows;  // the first row's own block
  const int64_t local = std::min(selection.local_blocks, before + rows - 1);
  for (int64_t back = 0; back <= local; ++back) {
    // Row r's block that lies `back` before its own, where there is one.
    const int64_t first = std::max<int64_t>(0, back - before), column = before + first - back;
    const int64_t start = out.storage_offset() + first * blocks + column;
    out.as_strided({out.size(0), rows - first}, {rows * blocks, blocks + 1}, start).add_(kAbove);
  }
  return out;
}

BlockLists choose_blocks(const at::Tensor& scores, const Ragged& ragged,
                         const Selection& selection) {
  TORCH_CHECK(!selection.forced_within || ragged.cu_q.sym_size(0) == 2,
              "choose_blocks: forced blocks count within the rule's number in one sequence only");
  enter_step(Step::none);
  const at::Tensor ranked = selection.forced_within ? forced_first(scores, selection) : scores;
  enter_step(Step::select);
  return block_select(ranked, ragged, selection);
}

at::Tensor with_scores_of(const at::Tensor& heads, const at::Tensor& own,
                          const at::Tensor& scores) {
  if (at::GradMode::is_enabled()) return scores.index_copy(0, heads, own);
  at::Tensor out = scores;
  return out.index_copy_(0, heads, own);
}

}  // namespace seer::torch_ops
