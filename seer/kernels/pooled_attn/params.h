#pragma once
// Dense attention that also gives the block max-pooled attention map: the contract.

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// The smallest weight with block_softmax, in log2.
constexpr float kSmallestBlockWeight = -125;

// Attention to all visible keys, and the ground truth of gate distillation (arXiv 2410.13276, section
// 3.2):
//
//   map[h, I, J] = max over i in row I, j in key block J of softmax(scale * q k^T)[h, i, j]
//
// The map alone: without o (null data) lse and the map are what they are with it, and v, which may be
// null, too, is not read.
//
// With block_softmax the weights of a query are a softmax over the largest scores of its blocks, not over those of all keys:
//
//   map[h, I, J] = max over i in row I of softmax over J of (max over j in key block J of scale * q k^T)[h, i, J]
//
// at least 2^-125 where the row sees something of J, so that it has a logarithm; lse is the log-sum-exp of these maxima. It costs an exponential a block instead of one a key, and orders blocks nearly as the
// true map does (README.md). Of the map alone. On Hopper scores of f16 vectors are summed in f16, too: exact to about 2^-10 of
// the largest, and infinite, which shows as NaN, from 65520 on before the scale.
//
// A query with NaN among its scores has no weights: its o and lse are NaN, and so is the map in its
// row, in every block that the query sees.
//
// Rows I are query blocks of all sequences together, counted from the start of each sequence's
// queries; key blocks J from the start of its keys. Never an S x S buffer: scratch is O(threads * S),
// of the caller on a GPU.
struct PooledAttnParams : PackedAttentionParams {
  float* map;              // [Hm, R, N]  0 where no key of the block is visible or J is not the
                           //             sequence's; Hm is Hq, or Hk: the max over the group
  const int32_t* cu_rows;  // [B + 1]     prefix sums of ceil(len_q / block_q)

  int num_map_heads;   // Hm
  int64_t num_rows;    // R
  int64_t num_blocks;  // N  key blocks of the longest sequence
  int block_q;         // 1 gives a map row per token (decode gates)
  int block_k;
  bool normalise;  // divide each row of the map by its sum where that is positive and not NaN (the
                   // target of the loss)
  bool block_softmax = false;

  // On a GPU: memory for block maxima, as much as pooled_attn_workspace() says, at a multiple of 16
  // bytes. Calls that may run at the same time need one each.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

}  // namespace seer::kernels
