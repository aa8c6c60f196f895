// pooled_attn beside torch's dense attention, which gives no map.

#include <ATen/core/grad_mode.h>

#include "seer/bench/attention.h"

namespace seer::bench {

void pooled_attn(const Request& request, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  for_each_shape(request, [&](const Shape& s) {
    const Inputs in(s);
    dense_rows(s, in, request, rows);
    const Times t = time_calls(
        [&] { torch_ops::pooled_attn(in.q, in.k, in.v, in.ragged, in.scale, true, false, true); },
        request.runs, request.seconds);
    rows.push_back(row_of(s, "seer", s.dtype, 1.0, "dense", t, in.causal_blocks));
  });
}

}  // namespace seer::bench
