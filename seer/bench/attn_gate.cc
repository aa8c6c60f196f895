// What a gate costs: its parts beside the sparse attention that it decides on.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "seer/bench/attention.h"

namespace seer::bench {

void attn_gate(const Request& request, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  for_each_shape(request, [&](const Shape& s) {
    const Inputs in(s);
    const auto& r = in.ragged;
    const at::Tensor weight = at::randn({s.heads_q, 3 * s.head_dim, s.head_dim}) * 0.02;
    const auto angles = at::rand({r.num_blocks, s.head_dim / 2}) * 6.28f;
    const at::Tensor cos = angles.cos(), sin = angles.sin();
    torch_ops::Selection selection;
    selection.strength = {s.density};

    const auto scores = [&] {
      const at::Tensor q =
          torch_ops::attn_gate_pool(in.q, r.cu_q, r.cu_rows, r.num_rows, s.block, 4, cos, sin);
      const at::Tensor k =
          torch_ops::attn_gate_pool(in.k, r.cu_k, r.cu_blocks, r.total_blocks, s.block, 7);
      return torch_ops::attn_gate_score(q, torch_ops::attn_gate_project(k, weight, cos, sin), r);
    };
    const at::Tensor made = scores();
    const auto lists = torch_ops::block_select(made, r, selection);
    const double kept = lists.count.sum(at::kDouble).item<double>();
    const auto add = [&](const char* name, double blocks, const std::function<void()>& call) {
      rows.push_back(row_of(s, name, s.dtype, kept / in.causal_blocks, "gate",
                            time_calls(call, request.runs, request.seconds), blocks));
    };
    add("seer attn_gate", 0, scores);
    add("seer block_select", 0, [&] { torch_ops::block_select(made, r, selection); });
    add("seer block_sparse_attn", kept,
        [&] { torch_ops::block_sparse_attn(in.q, in.k, in.v, r, lists, in.scale, true); });
  });
}

}  // namespace seer::bench
