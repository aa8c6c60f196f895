#pragma once
// Gradients of block-sparse attention: the contract.

#include "seer/kernels/attention/params.h"
#include "seer/kernels/block_list.h"

namespace seer::kernels {

// With P the weights of block_sparse_attn (softmax over the listed and visible keys), and
// delta_i = sum_d grad_o[i, d] o[i, d] (FlashAttention-2, arXiv 2307.08691, section 3.1.2):
//
//   dS = P * (grad_o v^T - delta)      grad_q = scale dS k
//   grad_v = P^T grad_o                grad_k = scale dS^T q
//
// Gradients of k and v are sums over the query heads of their group. Queries that see no key and keys
// that no query sees have gradients of zero; keys of blocks that no row lists are never read.
//
// q, k, v, o, lse and lists are those of the forward; they are only read.
struct BlockSparseAttnBackwardParams : PackedAttentionParams {
  BlockList lists;
  StridedIn grad_o;   // [T, Hq, D]
  StridedOut grad_q;  // [T, Hq, D]
  StridedOut grad_k;  // [S, Hk, D]
  StridedOut grad_v;  // [S, Hk, D]

  // On a GPU: as much memory as block_sparse_attn_backward_workspace() says, at a multiple of 16
  // bytes. Calls that may run at the same time need one each.
  void* workspace;
  int64_t workspace_bytes;
};

}  // namespace seer::kernels
