// What the sm80 decode kernel asks for, and the instance that it takes it with.

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/decode_attn/sm80/config.h"
#include "seer/kernels/decode_attn/sm80/decode.h"

namespace seer::kernels {
namespace {

using Params = DecodeAttnParams;

template <class Element>
void run(const Params& p, void* stream) {
  switch (p.head_dim) {
    case 64: return decode_sm80::run_pieces<Element, 64>(p, stream);
    case 96: return decode_sm80::run_pieces<Element, 96>(p, stream);
    case 128: return decode_sm80::run_pieces<Element, 128>(p, stream);
    case 256: return decode_sm80::run_pieces<Element, 256>(p, stream);
  }
}

}  // namespace

std::string decode_attn_sm80_why_not(const Params& p) {
  constexpr int kMostTiles = 65535;  // they are the grid's second axis
  const int64_t group = p.num_q_heads / std::max(p.num_kv_heads, 1);
  const int64_t tiles = (p.num_queries * group + decode_sm80::kRows - 1) / decode_sm80::kRows;
  if (tiles * p.num_kv_heads > kMostTiles) {
    return message(p.num_queries, " queries of ", p.num_q_heads, " heads, want fewer");
  }
  const int64_t total_q = int64_t{p.num_seqs} * p.num_queries;
  std::string reason = why_not_aligned("q", p.q, total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, total_q, p.num_q_heads, 2);
  return reason;
}

void decode_attn_sm80(const Params& p, void* stream) {
  SEER_CHECK(p.split > 0 && p.partials, "decode_attn: no memory for the results of pieces");
  p.dtype == DType::bf16 ? run<decode_sm80::bf16>(p, stream) : run<decode_sm80::f16>(p, stream);
  decode_sm80::combine_pieces(p, stream);
}

}  // namespace seer::kernels
