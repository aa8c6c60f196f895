// seer::attn_gate_pool. No gradient: a gate reads its model's q and k detached.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kPoolOp = "seer::attn_gate_pool";
constexpr PoolNames kNames = {kPoolOp, "x", "pools"};

void check_pools(const PoolNames& names, int64_t pools, bool turns) {
  TORCH_CHECK(pools >= 1 && pools <= 7, names.op, ": ", names.pools, " is ", pools,
              ", want the sum of some of max (1), min (2), avg (4)");
  const int count = kernels::count_pools(static_cast<int>(pools));
  TORCH_CHECK(!turns || count == 1, names.op, ": cos and sin turn one pooling, ", names.pools,
              " has ", count);
}

at::Tensor pool(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                int64_t num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                const OptionalTensor& sin) {
  const PoolStep step =
      prepare_pool(kNames, x, cu, cu_blocks, num_blocks, block, pools, given(cos), given(sin));
  step.run();
  return step.pooled;
}

at::Tensor pool_meta(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                     SymInt num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                     const OptionalTensor& sin) {
  return pool_output(kNames, x, cu, cu_blocks, num_blocks, block, pools, given(cos), given(sin));
}

at::Tensor call(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                SymInt num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                const OptionalTensor& sin) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kPoolOp, "").typed<decltype(pool_meta)>();
  return op.call(x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
}

at::Tensor pool_autograd(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                         SymInt num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                         const OptionalTensor& sin) {
  refuse_gradient(kPoolOp, "detach it, as gates do not train their model",
                  {{"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
}

}  // namespace

at::Tensor pool_output(const PoolNames& names, const at::Tensor& x, const at::Tensor& cu,
                       const at::Tensor& cu_blocks, const SymInt& num_blocks, int64_t block,
                       int64_t pools, const at::Tensor& cos, const at::Tensor& sin) {
  const char* op = names.op;
  const Named named{names.x, x};
  check_same_device(op, {named, {"cu", cu}, {"cu_blocks", cu_blocks}, {"cos", cos}, {"sin", sin}});
  check_heads(op, named);
  check_block(op, block);
  check_pools(names, pools, cos.defined());
  check_count(op, "num_blocks", num_blocks, kernels::kMostTokens);
  check_prefix_forms(op, {{"cu", cu}, {"cu_blocks", cu_blocks}});
  check_rope_form(op, cos, sin, num_blocks, x.sym_size(2));
  const int count = kernels::count_pools(static_cast<int>(pools));
  return at::empty_symint({num_blocks, x.sym_size(1), x.sym_size(2) * count},
                          x.options().dtype(at::kFloat));
}

PoolStep prepare_pool(const PoolNames& names, const at::Tensor& x, const at::Tensor& cu,
                      const at::Tensor& cu_blocks, int64_t num_blocks, int64_t block, int64_t pools,
                      const at::Tensor& cos, const at::Tensor& sin) {
  PoolStep step;
  step.pooled = pool_output(names, x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
  check_prefix(names.op, {"cu", cu}, x.size(0));
  check_block_prefix(names.op, {"cu_blocks", cu_blocks}, cu, block, num_blocks);
  step.x = x;
  step.rope = Rope(cos, sin);
  kernels::GatePoolParams& p = step.p;
  p.x = strided_in(x);
  p.cu = int_data(cu);
  p.cu_blocks = int_data(cu_blocks);
  p.pooled = step.pooled.mutable_data_ptr<float>();
  p.num_seqs = num_sequences(cu);
  p.num_heads = static_cast<int>(x.size(1));
  p.head_dim = static_cast<int>(x.size(2));
  p.block = static_cast<int>(block);
  p.num_blocks = num_blocks;
  p.pools = static_cast<int>(pools);
  p.dtype = dtype_of(x);
  p.cos = step.rope.cos_data();
  p.sin = step.rope.sin_data();
  p.rope_half = step.rope.half;
  return step;
}

void PoolStep::run() const {
  const c10::DeviceGuard on_device(x.device());
  const Queue queue = queue_of(x);
  kernels::attn_gate_pool(p, queue.device, queue.stream);
}

at::Tensor attn_gate_pool(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                          int64_t num_blocks, int64_t block, int64_t pools, const at::Tensor& cos,
                          const at::Tensor& sin) {
  return call(x, cu, cu_blocks, num_blocks, block, pools, optional(cos), optional(sin));
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("attn_gate_pool", seer::torch_ops::pool);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("attn_gate_pool", seer::torch_ops::pool);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("attn_gate_pool", seer::torch_ops::pool_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("attn_gate_pool", seer::torch_ops::pool_autograd);
}
