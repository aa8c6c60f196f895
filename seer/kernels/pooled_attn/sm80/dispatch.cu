// What only the sm80 kernel asks for, and the instance that it takes it with.

#include <algorithm>

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/sm80/attn.h"
#include "seer/kernels/pooled_attn/sm80/config.h"
#include "seer/kernels/pooled_attn/tile_order.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;

template <class Element>
void run(const Params& p, void* stream) {
  switch (p.head_dim) {
    case 64: return pooled_sm80::run_attention<Element, 64>(p, stream);
    case 96: return pooled_sm80::run_attention<Element, 96>(p, stream);
    case 128: return pooled_sm80::run_attention<Element, 128>(p, stream);
    case 256: return pooled_sm80::run_attention<Element, 256>(p, stream);
  }
}

}  // namespace

std::string pooled_attn_sm80_why_not(const Params& p) {
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, p.total_q, p.num_q_heads, 2);
  return reason;
}

int64_t pooled_attn_sm80_workspace(const Params& p, int num_sms) {
  const int64_t tiles = num_places(tile_order(p, pooled_sm80::kQueries));
  const int64_t blocks = int64_t{num_sms} * pooled_sm80::blocks_per_sm(p.head_dim);
  return std::min(tiles, blocks) * pooled_sm80::slot_bytes(p);
}

void pooled_attn_sm80(const Params& p, void* stream) {
  clear_map(p, stream);
  p.dtype == DType::bf16 ? run<pooled_sm80::bf16>(p, stream) : run<pooled_sm80::f16>(p, stream);
  if (p.normalise) normalise_map(p, stream);
}

}  // namespace seer::kernels
