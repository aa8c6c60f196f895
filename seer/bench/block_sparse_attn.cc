// block_sparse_attn, and its backward, beside torch's dense attention.

#include <ATen/ATen.h>

#include <algorithm>

#include "seer/bench/attention.h"
#include "seer/kernels/block_sparse_attn/drawn_lists.h"

namespace seer::bench {
namespace {

torch_ops::BlockLists make_lists(const Shape& s, const torch_ops::Ragged& ragged) {
  const auto rows = static_cast<int>(ragged.num_rows);
  const auto drawn = kernels::draw_lists(s.lists, s.density, static_cast<int>(s.heads_q),
                                         kernels::causal_rows(rows, rows), /*seed=*/0);
  const at::Tensor count = at::tensor(drawn.count).view({s.heads_q, rows});
  return {at::tensor(drawn.begin).view_as(count), count, at::tensor(drawn.list)};
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
