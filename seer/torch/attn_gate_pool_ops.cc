// seer::attn_gate_pool. No gradient: a gate reads its model's q and k detached.

#include <ATen/ops/empty.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {

at::Tensor GatePool::form() const {
  const char* op = names.op;
  const at::Tensor c = given(cos), s = given(sin);
  check_same_device(op,
                    {{names.x, x}, {"cu", cu}, {"cu_blocks", cu_blocks}, {"cos", c}, {"sin", s}});
  check_heads(op, {names.x, x});
  check_block(op, block);
  TORCH_CHECK(pools >= 1 && pools <= 7, op, ": ", names.pools, " is ", pools,
              ", want the sum of some of max (1), min (2), avg (4)");
  const int count = kernels::count_pools(static_cast<int>(pools));
  TORCH_CHECK(!c.defined() || count == 1, op, ": cos and sin rotate one pooling, ", names.pools,
              " has ", count);
  check_count(op, "num_blocks", num_blocks, kernels::kMostTokens);
  check_prefix_forms(op, {{"cu", cu}, {"cu_blocks", cu_blocks}});
  check_rope_form(op, c, s, num_blocks, x.sym_size(2));
  return at::empty_symint({num_blocks, x.sym_size(1), x.sym_size(2) * count},
                          x.options().dtype(at::kFloat));
}

PreparedPool GatePool::prepare() const {
  PreparedPool out;
  out.pooled = form();
  out.x = x;
  out.rope = Rope(given(cos), given(sin));
  check_prefix(names.op, {"cu", cu}, x.size(0));
  check_block_prefix(names.op, {"cu_blocks", cu_blocks}, cu, block, out.pooled.size(0));
  kernels::GatePoolParams& p = out.p;
  p.x = strided_in(x);
  p.cu = int_data(cu);
  p.cu_blocks = int_data(cu_blocks);
  p.pooled = out.pooled.mutable_data_ptr<float>();
  p.num_seqs = num_sequences(cu);
  p.num_heads = static_cast<int>(x.size(1));
  p.head_dim = static_cast<int>(x.size(2));
  p.block = static_cast<int>(block);
  p.num_blocks = out.pooled.size(0);
  p.pools = static_cast<int>(pools);
  p.dtype = dtype_of(x);
  out.rope.put_into(p);
  return out;
}

void PreparedPool::run() const {
  const Queue queue(x);
  kernels::attn_gate_pool(p, queue.device, queue.stream);
}

at::Tensor GatePool::run() const {
  const PreparedPool pool = prepare();
  pool.run();
  return pool.pooled;
}

void GatePool::refuse() const {
  refuse_gradient(kName, kDetachForGate, {{"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
}

at::Tensor attn_gate_pool(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                          int64_t num_blocks, int64_t block, int64_t pools, const at::Tensor& cos,
                          const at::Tensor& sin) {
  return call<GatePool>(x, cu, cu_blocks, num_blocks, block, pools, optional(cos), optional(sin));
}

static const RegisteredOp<GatePool> kGatePool;

}  // namespace seer::torch_ops
