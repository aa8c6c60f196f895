// pooled_attn beside torch's dense attention, which gives no map.

#include <ATen/core/grad_mode.h>

#include "seer/bench/attention.h"

namespace seer::bench {

void pooled_attn(const Request& request, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  for_each_shape(request, [&](const Shape& s) {
    const Inputs in(s);
    dense_rows(s, in, request, rows);
    const auto row = [&](const char* name, double products, const std::function<void()>& call) {
      const Times t = time_calls(call, request.runs, request.seconds);
      rows.push_back(row_of(s, name, s.dtype, 1.0, "dense", t, in.causal_blocks * products));
    };
    row("seer", 1,
        [&] { torch_ops::pooled_attn(in.q, in.k, in.v, in.ragged, in.scale, true, false, true); });
    row("seer, map alone", 0.5,
        [&] { torch_ops::pooled_map(in.q, in.k, in.ragged, in.scale, true, false, true); });
  });
}

}  // namespace seer::bench
