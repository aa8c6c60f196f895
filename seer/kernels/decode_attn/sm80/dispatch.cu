#include "seer/kernels/attention/checks.h"
#include "seer/kernels/decode_attn/gpu.h"
#include "seer/kernels/decode_attn/sm80/pieces.cuh"

namespace seer::kernels {

std::string decode_attn_sm80_why_not(const DecodeAttnParams& p) {
  constexpr int kMostTiles = 65535;  // they are the grid's second axis
  const int64_t rows = int64_t{p.num_queries} * p.group();
  const int64_t tiles = (rows + decode_sm80::kRows - 1) / decode_sm80::kRows;
  if (tiles * p.num_kv_heads > kMostTiles) {
    return message(p.num_queries, " queries of ", p.num_q_heads, " heads, want fewer");
  }
  return why_not_aligned(p, 2);
}

void decode_attn_sm80(const DecodeAttnParams& p, void* stream) {
  SEER_CHECK(p.split > 0 && p.partials, "decode_attn: no memory for the results of pieces");
  run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
    decode_sm80::run_pieces<Element, kHeadDim>(p, stream);
  });
  decode_sm80::combine_pieces(p, stream);
}

}  // namespace seer::kernels
