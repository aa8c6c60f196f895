#include "seer/bench/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/report/table.h"

namespace seer::bench {

void for_each_shape(const Request& r, const std::function<void(const Shape&)>& run) {
  for (const int64_t head_dim : r.head_dims) {
    for (const int64_t length : r.lengths) {
      for (const std::string& lists : r.lists) {
        for (const double density : r.densities) {
          for (const std::string& dtype : r.dtypes) {
            run({r.heads_q, r.heads_kv, head_dim, length, r.block, lists, density, dtype});
          }
        }
      }
    }
  }
}

Inputs::Inputs(const Shape& s)
    : ragged(torch_ops::make_ragged({s.length}, {s.length}, s.block, at::kCPU)),
      scale(1 / std::sqrt(static_cast<double>(s.head_dim))),
      causal_blocks(static_cast<double>(ragged.num_rows) *
                    static_cast<double>(ragged.num_rows + 1) / 2 * static_cast<double>(s.heads_q)) {
  const auto random = [&](int64_t heads) {
    return at::randn({s.length, heads, s.head_dim})
        .to(s.dtype == "f32" ? at::kFloat : at::kBFloat16);
  };
  q = random(s.heads_q), k = random(s.heads_kv), v = random(s.heads_kv);
}

nlohmann::json row_of(const Shape& s, const std::string& implementation, const std::string& dtype,
                      double density, const std::string& lists, const Times& t, double blocks) {
  const double flops = 4.0 * s.block * s.block * static_cast<double>(s.head_dim) * blocks;
  return {{"implementation", implementation},
          {"heads_q", s.heads_q},
          {"heads_kv", s.heads_kv},
          {"head_dim", s.head_dim},
          {"len_q", s.length},
          {"len_k", s.length},
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

double products(Direction direction) {
  return direction == Direction::forward ? 1 : 2.5;
}

std::function<void()> pass_of(Direction direction, const Attend& attend, const at::Tensor& q,
                              const at::Tensor& k, const at::Tensor& v) {
  if (direction == Direction::forward) {
    return [=] {
      const at::NoGradGuard no_grad;
      attend(q, k, v);
    };
  }
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& x : {q, k, v}) inputs.push_back(x.detach().requires_grad_());
  const at::Tensor o = attend(inputs[0], inputs[1], inputs[2]), grad = at::randn_like(o);
  return [=] { torch::autograd::grad({o}, inputs, {grad}, /*retain_graph=*/true); };
}

void dense_rows(const Shape& s, const Inputs& in, const Request& request, nlohmann::json& rows,
                Direction direction) {
  for (const auto& [name, dtype] :
       {std::pair{"f32", at::kFloat}, std::pair{"bf16", at::kBFloat16}}) {
    const auto to_heads = [&, dtype = dtype](const at::Tensor& x) {
      return x.to(dtype).transpose(0, 1).unsqueeze(0).contiguous();
    };
    const Attend attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return at::scaled_dot_product_attention(q, k, v, {}, 0, true, in.scale,
                                              s.heads_q != s.heads_kv);
    };
    const Times t =
        time_calls(pass_of(direction, attend, to_heads(in.q), to_heads(in.k), to_heads(in.v)),
                   request.runs, request.seconds);
    rows.push_back(
        row_of(s, "torch sdpa", name, 1.0, "dense", t, in.causal_blocks * products(direction)));
  }
}

std::string attention_table(const nlohmann::json& rows) {
  report::Table table({"implementation", "dtype", "heads", "D", "length", "lists", "density",
                       "median", "min", "max", "kept GFLOP/s", "peak MiB"});
  for (const auto& r : rows) {
    table.add(
        {r["implementation"], r["dtype"],
         message(r["heads_q"].get<int>(), "/", r["heads_kv"].get<int>()),
         std::to_string(r["head_dim"].get<int>()), std::to_string(r["len_q"].get<int>()),
         r["lists"], report::fixed(r["density"], 3), ms_text(r["median_ms"], 1),
         ms_text(r["min_ms"], 1), ms_text(r["max_ms"], 1),
         r["kept_tflops"].is_null() ? "" : report::fixed(r["kept_tflops"].get<double>() * 1e3, 0),
         r.contains("peak_mib") ? report::fixed(r["peak_mib"], 0) : ""});
  }
  return table.text();
}

}  // namespace seer::bench
