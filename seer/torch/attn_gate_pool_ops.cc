// seer::attn_gate_pool. No gradient: a gate reads its model's q and k detached.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kPoolOp = "seer::attn_gate_pool";

void check_pools(int64_t pools, bool turns) {
  TORCH_CHECK(pools >= 1 && pools <= 7, kPoolOp, ": pools is ", pools,
              ", want the sum of some of max (1), min (2), avg (4)");
  const int count = kernels::count_pools(static_cast<int>(pools));
  TORCH_CHECK(!turns || count == 1, kPoolOp, ": cos and sin turn one pooling, pools has ", count);
}

at::Tensor pool(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                int64_t num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                const OptionalTensor& sin) {
  return pool_step(x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
}

at::Tensor pool_meta(const at::Tensor& x, const at::Tensor&, const at::Tensor&,
                     c10::SymInt num_blocks, int64_t block, int64_t pools,
                     const OptionalTensor& cos, const OptionalTensor&) {
  check_block(kPoolOp, block);
  check_pools(pools, given(cos).defined());
  const int count = kernels::count_pools(static_cast<int>(pools));
  return at::empty_symint({num_blocks, x.sym_size(1), x.sym_size(2) * count},
                          x.options().dtype(at::kFloat));
}

at::Tensor call(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                c10::SymInt num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                const OptionalTensor& sin) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow(kPoolOp, "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymInt,
                            int64_t, int64_t, const OptionalTensor&, const OptionalTensor&)>();
  return op.call(x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
}

at::Tensor pool_autograd(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                         c10::SymInt num_blocks, int64_t block, int64_t pools,
                         const OptionalTensor& cos, const OptionalTensor& sin) {
  refuse_gradient(kPoolOp, "detach it, as gates do not train their model",
                  {{"x", x}, {"cos", given(cos)}, {"sin", given(sin)}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(x, cu, cu_blocks, num_blocks, block, pools, cos, sin);
}

}  // namespace

// On a GPU the contents of prefix sums are not looked at: that would wait for the device.
at::Tensor pool_step(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                     int64_t num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                     const OptionalTensor& sin, bool beside_previous) {
  check_same_device(kPoolOp, {{"x", x}, {"cu", cu}, {"cu_blocks", cu_blocks}});
  check_devices(kPoolOp, {"x", x}, {{"cos", cos}, {"sin", sin}});
  check_heads(kPoolOp, {"x", x});
  check_block(kPoolOp, block);
  check_pools(pools, given(cos).defined());
  check_prefix(kPoolOp, {"cu", cu}, x.size(0));
  check_block_prefix(kPoolOp, {"cu_blocks", cu_blocks}, cu, block, num_blocks);
  const Rope rope = check_rope(kPoolOp, cos, sin, num_blocks, x.size(2));
  const int pool_bits = static_cast<int>(pools);
  at::Tensor pooled =
      at::empty({num_blocks, x.size(1), kernels::count_pools(pool_bits) * x.size(2)},
                x.options().dtype(at::kFloat));
  kernels::GatePoolParams p{};
  p.x = strided_in(x);
  p.cu = int_data(cu);
  p.cu_blocks = int_data(cu_blocks);
  p.pooled = pooled.mutable_data_ptr<float>();
  p.num_seqs = static_cast<int>(cu.size(0) - 1);
  p.num_heads = static_cast<int>(x.size(1));
  p.head_dim = static_cast<int>(x.size(2));
  p.block = static_cast<int>(block);
  p.num_blocks = num_blocks;
  p.pools = pool_bits;
  p.dtype = dtype_of(x);
  p.cos = rope.cos_data();
  p.sin = rope.sin_data();
  p.rope_half = rope.half;
  p.beside_previous = beside_previous;
  const c10::DeviceGuard on_device(x.device());
  const Queue queue = queue_of(x);
  kernels::attn_gate_pool(p, queue.device, queue.stream);
  return pooled;
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
