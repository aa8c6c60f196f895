#include "seer/kernels/decode_attn/reference.h"

#include "seer/kernels/attention/reference.h"

namespace seer::kernels {

void decode_attn_reference(const DecodeAttnParams& p) {
  for (int seq = 0; seq < p.num_seqs; ++seq) {
    for (int query = 0; query < p.num_queries; ++query) {
      const int64_t last = query + p.len_k(seq) - p.num_queries;
      std::vector<int64_t> keys;
      for (int64_t j = 0; j <= last; ++j) {
        if (p.window == 0 || j > last - p.window) keys.push_back(p.key_token(seq, j));
      }
      for (int head = 0; head < p.num_q_heads; ++head) {
        attend_reference(p, int64_t{seq} * p.num_queries + query, head, keys);
      }
    }
  }
}

}  // namespace seer::kernels
