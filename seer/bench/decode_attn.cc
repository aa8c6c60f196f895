// The attention of a decode step beside the rate at which the device reads memory.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "seer/bench/decode.h"
#include "seer/torch/ops.h"

namespace seer::bench {
namespace {

void time_decode_attn(const Request& r, int64_t head_dim, int64_t length, const std::string& dtype,
                      nlohmann::json& rows) {
  const auto options =
      at::TensorOptions(r.device).dtype(dtype == "f32" ? at::kFloat : at::kBFloat16);
  // As in a cache, the keys of a head lie together; keys and values lie side by side.
  const at::Tensor kv = at::randn({2, r.heads_kv, length, head_dim}, options);
  const at::Tensor q = at::randn({1, r.heads_q, head_dim}, options);
  const at::Tensor k = kv[0].transpose(0, 1), v = kv[1].transpose(0, 1);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  const auto bytes = static_cast<double>(kv.nbytes());
  const std::vector<std::function<void()>> calls{
      [&] { read_memory(kv); }, [&] { torch_ops::decode_attn(q, k, v, {}, 0, scale); },
      [&] {
        at::scaled_dot_product_attention(q.unsqueeze(2), kv[0].unsqueeze(0), kv[1].unsqueeze(0), {},
                                         0, false, scale, r.heads_q != r.heads_kv);
      }};
  const auto ms = time_in_rounds(calls, r, r.device.is_cuda() ? 20 : 1);
  const char* names[] = {"memory read", "seer", "torch sdpa"};
  for (size_t i = 0; i < ms.size(); ++i) {
    rows.push_back(decode_row({{"model", ""},
                               {"implementation", names[i]},
                               {"dtype", dtype},
                               {"heads_q", r.heads_q},
                               {"heads_kv", r.heads_kv},
                               {"head_dim", head_dim},
                               {"len_k", length}},
                              ms[i], bytes, ms[0], bytes));
  }
}

}  // namespace

void decode_attn(const Request& r, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  for (const int64_t head_dim : r.head_dims) {
    for (const int64_t length : r.lengths) {
      for (const std::string& dtype : r.dtypes) time_decode_attn(r, head_dim, length, dtype, rows);
    }
  }
}

}  // namespace seer::bench
