#pragma once
// Arguments that describe packed sequences, as ops have them in their schemas: checked once, and put
// into a kernel's parameters once.

#include <ATen/ops/empty.h>

#include <tuple>

#include "seer/kernels/attention/params.h"
#include "seer/torch/checks.h"

namespace seer::torch_ops {

// o [T, Hq, D] and lse [Hq, T] f32 for q, without contents.
inline at::Tensor attention_output(const at::Tensor& q) {
  return at::empty_symint(q.sym_sizes(), q.options());
}
inline at::Tensor attention_lse(const at::Tensor& q) {
  return at::empty_symint({q.sym_size(1), q.sym_size(0)}, q.options().dtype(at::kFloat));
}
inline std::tuple<at::Tensor, at::Tensor> attention_results(const at::Tensor& q) {
  return {attention_output(q), attention_lse(q)};
}

// q, k, v (where it is defined) and their sizes.
inline void put_qkv(kernels::PackedAttentionParams& p, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v) {
  p.q = strided_in(q);
  p.k = strided_in(k);
  if (v.defined()) p.v = strided_in(v);
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(k.size(1));
  p.head_dim = static_cast<int>(q.size(2));
  p.total_q = q.size(0);
  p.total_k = k.size(0);
  p.dtype = dtype_of(q);
}

// q [T, Hq, D], k, v [S, Hk, D] (v undefined: the op has no values), and where sequences start in them: `Tensor q, Tensor k, Tensor v,
// Tensor cu_q, Tensor cu_k, Tensor cu_rows`.
struct PackedQkv {
  const at::Tensor &q, &k, &v, &cu_q, &cu_k, &cu_rows;

  // `block`: tokens in a key block.
  void check_form(const char* op, int64_t block, const char* block_name, double scale,
                  bool takes_f64 = false) const {
    check_same_device(op, {{"q", q}, {"k", k}, {"v", v}});
    check_same_device(op, {{"q", q}, {"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
    check_qkv(op, q, k, v, takes_f64);
    check_block(op, block, block_name);
    check_scale(op, scale);
    check_prefix_forms(op, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  }
  // Rows of `block_q` tokens, `num_rows` of them where that is not negative.
  void check_contents(const char* op, int64_t block_q, int64_t num_rows) const {
    check_prefix(op, {"cu_q", cu_q}, q.size(0));
    check_prefix(op, {"cu_k", cu_k}, k.size(0));
    check_block_prefix(op, {"cu_rows", cu_rows}, cu_q, block_q, num_rows);
  }
  void put_into(kernels::PackedAttentionParams& p, const at::Tensor& o, const at::Tensor& lse,
                double scale, bool causal) const {
    put_qkv(p, q, k, v);
    if (o.defined()) p.o = strided_out(o);
    p.lse = lse.mutable_data_ptr<float>();
    p.cu_q = int_data(cu_q);
    p.cu_k = int_data(cu_k);
    p.num_seqs = num_sequences(cu_q);
    p.scale = static_cast<float>(scale);
    p.causal = causal;
  }
};

}  // namespace seer::torch_ops
