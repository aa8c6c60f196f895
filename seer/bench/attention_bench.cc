// Attention operations beside torch's scaled_dot_product_attention.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/bench/bench.h"
#include "seer/torch/ops.h"

namespace seer::bench {
namespace {

struct Inputs {
  at::Tensor q, k, v;
  torch_ops::Ragged ragged;
  double scale;
};

Inputs make_inputs(const Shape& s) {
  const at::ScalarType dtype = s.dtype == "f32" ? at::kFloat : at::kBFloat16;
  const auto random = [&](int64_t length, int64_t heads) {
    return at::randn({length, heads, s.head_dim}).to(dtype);
  };
  return {random(s.len_q, s.heads_q), random(s.len_k, s.heads_kv), random(s.len_k, s.heads_kv),
          torch_ops::make_ragged({s.len_q}, {s.len_k}, s.block, at::kCPU),
          1 / std::sqrt(static_cast<double>(s.head_dim))};
}

// Scores whose best blocks are random, or shaped like a gate's choice: a sink, recent blocks, a few
// columns that every row likes, and scattered ones.
at::Tensor make_scores(const Shape& s, const torch_ops::Ragged& ragged) {
  at::Tensor scores = at::rand({s.heads_q, ragged.num_rows, ragged.num_blocks});
  const int64_t offset = ragged.num_blocks - ragged.num_rows;
  const at::Tensor row = at::arange(ragged.num_rows).unsqueeze(1) + offset;
  const at::Tensor column = at::arange(ragged.num_blocks).unsqueeze(0);
  if (s.lists == "gate") {
    const at::Tensor vertical = at::rand({s.heads_q, 1, ragged.num_blocks}) < s.density / 2;
    scores = scores + vertical * 2.0;
    scores = scores + ((row - column < 4) * 3.0).unsqueeze(0);
    scores = scores + ((column < 1) * 3.0).unsqueeze(0);
  }
  return scores.masked_fill((column > row).unsqueeze(0), -INFINITY);
}

torch_ops::BlockLists make_lists(const Shape& s, const torch_ops::Ragged& ragged) {
  torch_ops::Selection selection;
  selection.rule = s.lists == "gate" ? "head_budget" : "nz_ratio";
  selection.strength = {s.density};
  return torch_ops::block_select(make_scores(s, ragged), ragged, selection);
}

nlohmann::json row_of(const Shape& s, const std::string& implementation, const std::string& dtype,
                      double density, const std::string& lists, const Times& t, double blocks) {
  const double flops = 4.0 * s.block * s.block * static_cast<double>(s.head_dim) * blocks;
  return {{"implementation", implementation},
          {"heads_q", s.heads_q},
          {"heads_kv", s.heads_kv},
          {"head_dim", s.head_dim},
          {"len_q", s.len_q},
          {"len_k", s.len_k},
          {"block", s.block},
          {"density", density},
          {"lists", lists},
          {"dtype", dtype},
          {"median_ms", t.median_ms},
          {"min_ms", t.min_ms},
          {"max_ms", t.max_ms},
          {"runs", t.runs},
          {"kept_tflops", flops / t.median_ms * 1e-9}};
}

double causal_blocks(const Shape& s, const torch_ops::Ragged& ragged) {
  double blocks = 0;
  for (int64_t r = 0; r < ragged.num_rows; ++r) {
    blocks += static_cast<double>(r + 1 + ragged.num_blocks - ragged.num_rows);
  }
  return blocks * static_cast<double>(s.heads_q);
}

// torch's dense attention in both dtypes; the faster one is the rival.
void dense_rows(const Shape& s, const Inputs& in, int runs, double seconds, nlohmann::json& rows) {
  SEER_CHECK(s.len_q == s.len_k,
             "the dense rival is causal without an offset: len_q must be len_k");
  for (const auto& [name, dtype] :
       {std::pair{"f32", at::kFloat}, std::pair{"bf16", at::kBFloat16}}) {
    const auto to_heads = [&, dtype = dtype](const at::Tensor& x) {
      return x.to(dtype).transpose(0, 1).unsqueeze(0).contiguous();
    };
    const at::Tensor q = to_heads(in.q), k = to_heads(in.k), v = to_heads(in.v);
    const Times t = time_calls(
        [&] {
          at::scaled_dot_product_attention(q, k, v, {}, 0, true, in.scale, s.heads_q != s.heads_kv);
        },
        runs, seconds);
    rows.push_back(row_of(s, "torch sdpa", name, 1.0, "dense", t, causal_blocks(s, in.ragged)));
  }
}

}  // namespace

void block_sparse_attn(const Shape& s, int runs, double seconds, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const Inputs in = make_inputs(s);
  const bool dense_known = std::any_of(rows.begin(), rows.end(), [&](const nlohmann::json& row) {
    return row["lists"] == "dense" && row["len_q"] == s.len_q && row["head_dim"] == s.head_dim &&
           row["heads_q"] == s.heads_q && row["heads_kv"] == s.heads_kv;
  });
  if (!dense_known && s.len_q == s.len_k) dense_rows(s, in, runs, seconds, rows);
  const auto lists = make_lists(s, in.ragged);
  const double kept = lists.count.sum(at::kDouble).item<double>();
  const Times t = time_calls(
      [&] { torch_ops::block_sparse_attn(in.q, in.k, in.v, in.ragged, lists, in.scale, true); },
      runs, seconds);
  rows.push_back(row_of(s, "seer", s.dtype, kept / causal_blocks(s, in.ragged), s.lists, t, kept));
}

void pooled_attn(const Shape& s, int runs, double seconds, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const Inputs in = make_inputs(s);
  dense_rows(s, in, runs, seconds, rows);
  const Times t = time_calls(
      [&] { torch_ops::pooled_attn(in.q, in.k, in.v, in.ragged, in.scale, true, false, true); },
      runs, seconds);
  rows.push_back(row_of(s, "seer", s.dtype, 1.0, "dense", t, causal_blocks(s, in.ragged)));
}

void attn_gate(const Shape& s, int runs, double seconds, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const Inputs in = make_inputs(s);
  const auto& r = in.ragged;
  const at::Tensor weight = at::randn({s.heads_q, 3 * s.head_dim, s.head_dim}) * 0.02;
  const auto angles = at::rand({r.num_blocks, s.head_dim / 2}) * 6.28f;
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  const at::Tensor q_cos = cos.narrow(0, r.num_blocks - r.num_rows, r.num_rows);
  const at::Tensor q_sin = sin.narrow(0, r.num_blocks - r.num_rows, r.num_rows);
  torch_ops::Selection selection;
  selection.strength = {s.density};

  const auto scores = [&] {
    const at::Tensor q =
        torch_ops::attn_gate_pool(in.q, r.cu_q, r.cu_rows, r.num_rows, s.block, 4, q_cos, q_sin);
    const at::Tensor k =
        torch_ops::attn_gate_pool(in.k, r.cu_k, r.cu_blocks, r.total_blocks, s.block, 7);
    return torch_ops::attn_gate_score(q, torch_ops::attn_gate_project(k, weight, cos, sin), r);
  };
  const at::Tensor made = scores();
  const auto lists = torch_ops::block_select(made, r, selection);
  const double kept = lists.count.sum(at::kDouble).item<double>();
  const double density = kept / causal_blocks(s, r);
  rows.push_back(row_of(s, "seer attn_gate", s.dtype, density, "gate",
                        time_calls([&] { scores(); }, runs, seconds), 0));
  rows.push_back(
      row_of(s, "seer block_select", s.dtype, density, "gate",
             time_calls([&] { torch_ops::block_select(made, r, selection); }, runs, seconds), 0));
  rows.push_back(row_of(
      s, "seer block_sparse_attn", s.dtype, density, "gate",
      time_calls([&] { torch_ops::block_sparse_attn(in.q, in.k, in.v, r, lists, in.scale, true); },
                 runs, seconds),
      kept));
}

}  // namespace seer::bench
