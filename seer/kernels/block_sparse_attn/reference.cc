#include "seer/kernels/block_sparse_attn/reference.h"

#include "seer/kernels/attention/reference.h"

namespace seer::kernels {
namespace {

// The tokens of the keys that query i of sequence b sees.
std::vector<int64_t> visible_keys(const BlockSparseAttnParams& p, int b, int64_t i, int head) {
  const BlockList& lists = p.lists;
  const int64_t row = lists.cu_rows[b] + i / lists.block_q;
  const int64_t entry = int64_t{head} * lists.num_heads / p.num_q_heads * lists.num_rows + row;
  std::vector<int64_t> keys;
  for (int n = 0; n < lists.count[entry]; ++n) {
    const int64_t first = int64_t{lists.list[lists.begin[entry] + n]} * lists.block_k;
    for (int64_t j = first; j < std::min(first + lists.block_k, p.len_k(b)); ++j) {
      if (j <= p.last_key(b, i)) keys.push_back(p.key_token(b, j));
    }
  }
  return keys;
}

}  // namespace

void block_sparse_attn_reference(const BlockSparseAttnParams& p) {
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t i = 0; i < p.len_q(b); ++i) {
      for (int head = 0; head < p.num_q_heads; ++head) {
        attend_reference(p, p.cu_q[b] + i, head, visible_keys(p, b, i, head));
      }
    }
  }
}

}  // namespace seer::kernels
