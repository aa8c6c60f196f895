// block_sparse_attn, and its backward, beside torch's dense attention.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "seer/bench/attention.h"

namespace seer::bench {
namespace {

// Scores whose best blocks are random, or shaped like a gate's choice: a sink, recent blocks, a few
// columns that every row likes, and scattered ones.
at::Tensor make_scores(const Shape& s, const torch_ops::Ragged& ragged) {
  at::Tensor scores = at::rand({s.heads_q, ragged.num_rows, ragged.num_blocks});
  const at::Tensor row = at::arange(ragged.num_rows).unsqueeze(1);
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

void bench_sparse(Direction direction, const Request& request, nlohmann::json& rows) {
  for_each_shape(request, [&](const Shape& s) {
    const Inputs in(s);
    const bool dense_known = std::any_of(rows.begin(), rows.end(), [&](const nlohmann::json& row) {
      return row["lists"] == "dense" && row["len_q"] == s.length && row["head_dim"] == s.head_dim;
    });
    if (!dense_known) dense_rows(s, in, request, rows, direction);
    const auto lists = make_lists(s, in.ragged);
    const double kept = lists.count.sum(at::kDouble).item<double>();
    const Attend attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return std::get<0>(torch_ops::block_sparse_attn(q, k, v, in.ragged, lists, in.scale, true));
    };
    const Times t =
        time_calls(pass_of(direction, attend, in.q, in.k, in.v), request.runs, request.seconds);
    rows.push_back(row_of(s, "seer", s.dtype, kept / in.causal_blocks, s.lists, t,
                          kept * products(direction)));
  });
}

}  // namespace

void block_sparse_attn(const Request& request, nlohmann::json& rows) {
  bench_sparse(Direction::forward, request, rows);
}
void block_sparse_attn_backward(const Request& request, nlohmann::json& rows) {
  bench_sparse(Direction::backward, request, rows);
}

}  // namespace seer::bench
