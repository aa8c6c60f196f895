#pragma once
// The ops on tensors, one function each: torch.ops.seer.<same name> is the same call, with the fields of
// Ragged, BlockLists and Selection spelled out. Shapes, types and devices are checked by the same code
// for CPU, CUDA and meta tensors; wrong ones raise c10::Error that says what was expected and what came. Sizes are limited by
// kernels/size_limits.h. Forward-mode differentiation (a tangent on any tensor) is an error.
//
//   B sequences · T query tokens, S key tokens of all sequences together · Hq, Hk query, key heads
//   D head size · d gate size · R rows = query blocks of all sequences · N key blocks of the longest

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "seer/kernels/block_select/rules.h"

namespace seer::torch_ops {

// Prefix sums that describe packed sequences, int32 [B + 1] each, on the device of the data.
// Where q and k differ in length the queries are the last ones of their sequence.
struct Ragged {
  at::Tensor cu_q, cu_k;          // tokens
  at::Tensor cu_rows, cu_blocks;  // query blocks, key blocks
  int64_t num_rows = 0;           // R
  int64_t total_blocks = 0;       // key blocks of all sequences
  int64_t num_blocks = 0;         // N
  int block = 64;                 // tokens in a key block
  int block_q = 64;               // tokens in a query block, a row
  // Tokens in a block, for an op whose blocks of queries and keys are one size. Error: they are not.
  int one_block(const char* op) const;
};
// From host lengths; `block` tokens in a block of queries and of keys. Lengths of 0 are allowed, more
// than 2^28 tokens in all are not.
Ragged make_ragged(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& k_lens,
                   int block, const at::Device& device);
// The same with rows of `block_q` tokens, 1 ... 128, for pooled_attn: the other ops take one block.
Ragged make_ragged(const std::vector<int64_t>& q_lens, const std::vector<int64_t>& k_lens,
                   int block_q, int block_k, const at::Device& device);

// What a row attends to: list[begin .. begin + count), ascending. Checked before it is used.
struct BlockLists {
  at::Tensor begin;  // [L, R] int64
  at::Tensor count;  // [L, R] int32
  at::Tensor list;   // int32
};

// q [T, Hq, D], k, v [S, Hk, D] -> o [T, Hq, D], lse [Hq, T] f32. Token and head strides are free.
// Differentiable, o with respect to q, k and v, once.
std::tuple<at::Tensor, at::Tensor> block_sparse_attn(const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v, const Ragged& ragged,
                                                     const BlockLists& lists, double scale,
                                                     bool causal);

// A decode step: dense attention of the last M tokens of each sequence to all keys, or to the last
// `window` (0: all). q [B * M, Hq, D], k, v [S, Hk, D], cu_k int32 [B + 1], undefined for one sequence
// -> o [B * M, Hq, D], lse [Hq, B * M] f32. Token and head strides are free; it is fastest where the
// keys of a head lie together, as SequenceCache has them. Not differentiable.
std::tuple<at::Tensor, at::Tensor> decode_attn(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v, const at::Tensor& cu_k,
                                               int64_t window, double scale);
// Whether an implementation takes such a call of `num_seqs` sequences.
bool decode_attn_takes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       int64_t num_seqs);

// -> o [T, Hq, D], lse [Hq, T] f32, map [Hq or Hk, R, N] f32. Rows of one token (ragged.block_q = 1)
// give each token's largest weight in every key block.
std::tuple<at::Tensor, at::Tensor, at::Tensor> pooled_attn(const at::Tensor& q, const at::Tensor& k,
                                                           const at::Tensor& v,
                                                           const Ragged& ragged, double scale,
                                                           bool causal, bool group_max,
                                                           bool normalise);
// lse and map alone, as pooled_attn gives them: no products with values.
std::tuple<at::Tensor, at::Tensor> pooled_map(const at::Tensor& q, const at::Tensor& k,
                                              const Ragged& ragged, double scale, bool causal,
                                              bool group_max, bool normalise);

// x [T, H, D], cu [B + 1], cu_blocks [B + 1] -> [num_blocks, H, P * D] f32. `pools` is PoolBits.
// With cos and sin [num_blocks, w / 2] f32, for one pooling: rotated, as attn_gate_project without a
// weight does it, in one pass. Error where x, cos or sin needs a gradient: gates do not train their
// model, so x is detached by the caller.
at::Tensor attn_gate_pool(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                          int64_t num_blocks, int64_t block, int64_t pools,
                          const at::Tensor& cos = {}, const at::Tensor& sin = {});

// x [R, Hin, F] f32, weight [Hout, F, d] f32 or undefined, cos, sin [R, w / 2] f32 or undefined ->
// [R, Hout, d] f32. Differentiable in weight; error where x, cos or sin needs a gradient.
at::Tensor attn_gate_project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                             const at::Tensor& sin);

// Both poolings and projections of a gate without gradients: q [T, Hq, D], k [T, Hk, D] of the same
// tokens, weights f32 or undefined -> q_gate [R, Hq or Hout, d], k_gate [R, Hk or Hout, d] f32, as
// attn_gate_pool and attn_gate_project give them, bit by bit (without a weight d is P * D). On a GPU
// queries are pooled, which is bound by memory, while keys are projected, which is bound by latency.
// Error where one of them or a weight needs a gradient: the two ops give that of the weights.
std::tuple<at::Tensor, at::Tensor> attn_gate_vectors(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu, const at::Tensor& cu_blocks,
    int64_t num_blocks, int64_t block, int64_t q_pools, int64_t k_pools, const at::Tensor& q_weight,
    const at::Tensor& k_weight, const at::Tensor& cos, const at::Tensor& sin);

// q_gate [R, Hq, d], k_gate [K, Hg, d] f32 -> scores [Hq, R, N] f32, -inf where masked, scaled by
// 1/sqrt(d). Differentiable in both.
at::Tensor attn_gate_score(const at::Tensor& q_gate, const at::Tensor& k_gate,
                           const Ragged& ragged);

// Scores of lookup heads, which are chosen by tokens: q [T, L, r] and k [S, L, r], the projections of a head's q and of its
// k after RoPE -> [L, R, N] f32, -inf where masked:
//
//   max over i in row I of (m_iJ - log of the sum over J of exp(m_iJ)),   m_iJ = scale * max over j in block J of q_i . k_j
//
// Differentiable in both. `beside`: multiprocessors of a GPU that it leaves to kernels of other streams.
at::Tensor lookup_score(const at::Tensor& q, const at::Tensor& k, const Ragged& ragged,
                        double scale, int64_t beside = 0);

// What it takes: of q [T, Hq, D] and k [S, Hk, D] after RoPE the heads that `heads` and `kv_heads`, int64 [L], name, times
// weight_q and weight_k [L, D, r] f32 -> [T, L, r], [S, L, r], f16 where q is of 16 bits. A GPU then multiplies numbers of q's
// type; sums are f32. Error where a weight needs a gradient.
std::tuple<at::Tensor, at::Tensor> lookup_project(const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& weight_q,
                                                  const at::Tensor& weight_k,
                                                  const at::Tensor& heads,
                                                  const at::Tensor& kv_heads);

// scores, target [H, R, N] f32 -> loss [] f64. kind: "kl" or "mse". Differentiable in scores.
at::Tensor gate_loss(const at::Tensor& scores, const at::Tensor& target, const Ragged& ragged,
                     double skip, const std::string& kind);

// Settings of block_select; kernels/block_select/{rules,params}.h say what each means.
struct Selection {
  std::string rule = kernels::kDefaultSelectRule;
  std::vector<double> strength;  // one for all heads, or one per head
  int64_t sink_blocks = 0, local_blocks = 0, last_dense_rows = 0;
  int64_t prompt_blocks = 0;  // of the complete prompt, given with each chunk; 0: not in chunks
  // Of choose_blocks(): forced blocks count within the number that the rule keeps, as the best ones.
  // The published rule, without it, adds what is forced to what is best. One sequence only.
  bool forced_within = false;
};
// scores [L, R, N] f32 -> lists. Rows have places of their own in `list`, with -1 between: the kept
// blocks are count.sum(). Not differentiable, and does not ask for detached scores.
BlockLists block_select(const at::Tensor& scores, const Ragged& ragged, const Selection& selection);
// A copy of `scores` in which the blocks that `selection` forces (the diagonal, sink and local blocks) are
// above all others, so that rules that take the k best count them.
at::Tensor forced_first(const at::Tensor& scores, const Selection& selection);
// block_select, after forced_first() where the selection asks for it.
BlockLists choose_blocks(const at::Tensor& scores, const Ragged& ragged,
                         const Selection& selection);

// What sparse attention gives.
struct SparseOutput {
  at::Tensor o, lse;  // as of block_sparse_attn
  BlockLists lists;
};
// Lookup heads of a layer: which of its query heads, int64 [L] on their device, and lookup_score's q and k.
struct Lookups {
  at::Tensor q, k, heads;  // undefined: none
};
// The gate's scores [Hq, R, N] with `own` [L, R, N] in place of those of `heads`, int64 [L]. Differentiable; without gradients
// `scores` itself is written to.
at::Tensor with_scores_of(const at::Tensor& heads, const at::Tensor& own, const at::Tensor& scores);

}  // namespace seer::torch_ops
