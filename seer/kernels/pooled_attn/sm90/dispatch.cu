// What only the sm90 kernel asks for, and the instance that it takes it with.

#include <algorithm>

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/sm90/attn.h"
#include "seer/kernels/pooled_attn/sm90/config.h"
#include "seer/kernels/pooled_attn/tile_order.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;

template <class Element>
void run(const Params& p, void* stream) {
  if (p.head_dim == 64) return pooled_sm90::run_attention<Element, 64>(p, stream);
  pooled_sm90::run_attention<Element, 128>(p, stream);
}

}  // namespace

std::string pooled_attn_sm90_why_not(const Params& p) {
  if (p.head_dim != 64 && p.head_dim != 128) {
    return message("head_dim is ", p.head_dim, ", want 64 or 128");
  }
  if (p.block_q == 1) return "block_q is 1, want 64 or 128";
  // Copied, and o written, 16 bytes at a time.
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, p.total_q, p.num_q_heads, 8);
  return reason;
}

int64_t pooled_attn_sm90_workspace(const Params& p, int num_sms) {
  const int64_t tiles = num_places(tile_order(p, pooled_sm90::kQueries));
  const int64_t steps =
      std::min<int64_t>(pooled_sm90::longest_row_steps(p), pooled_sm90::kMostKeptSteps);
  return pooled_sm90::kCounterBytes +
         std::min<int64_t>(tiles, num_sms) * steps * pooled_sm90::kStepBytes;
}

void pooled_attn_sm90(const Params& p, void* stream) {
  clear_map(p, stream);
  p.dtype == DType::bf16 ? run<pooled_sm90::bf16>(p, stream) : run<pooled_sm90::f16>(p, stream);
  if (p.normalise) normalise_map(p, stream);
}

}  // namespace seer::kernels
