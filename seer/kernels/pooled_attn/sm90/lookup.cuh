#pragma once
// Scores of lookup heads for sm_90a (block_softmax): the map of a softmax over the largest scores of blocks.
//
// As in attn.cuh a thread loads, and thread blocks take tiles of one head, the longest first. Four consumer warpgroups have
// kGroups times 64 queries; where these are 128 (calls of few tiles, which would leave multiprocessors without work), two consumers
// share the same queries and take alternate steps of keys:
//
//   producer      next tile ─► q;  k[i] ─► ring, last keys first (the masked ones)
//   consumer      k[i]     ─► first piece of S, second piece of S ─► maxima ─► workspace;  sum of exp(maxima)
//   end of tile   sums of those with the same queries ─► lse;  maxima and lse ─► map
//
// Where the workspace is too short for a row, the first steps' scores are computed again, as in attn.cuh.

#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/sm90/frame.cuh"
#include "seer/kernels/pooled_attn/sm90/lookup_tile.cuh"

namespace seer::kernels::pooled_sm90 {

// What is the same in all lanes, in a register of the whole warp, as addresses of products have to be.
__device__ __forceinline__ int uniform(int x) {
  return __reduce_max_sync(kAllLanes, x);
}

// A consumer: its queries, and its part of a tile's steps.
template <class Config>
struct LookupConsumer {
  using Scores = typename Config::Scores;
  using Word = typename Scores::Word;
  static constexpr int kGroups = Config::kGroups, kParts = Config::kParts, kKeys = Config::kKeys;
  static constexpr int kPieceKeys = kKeys / kPieces, kK = Config::kHeadDim / 16;

  const PooledAttnParams& p;
  typename Config::Smem& smem;
  const int w, group, part;  // part: of the steps
  const int warp, lane;
  const float scale_log2;
  // Of the four lanes that have the same rows each goes on with one row and one piece.
  const int own_row, own_piece;
  Word* const maxima;  // [kept steps][kPieces][64] of the group
  uint32_t q[kK][4];
  Word s[kPieces][32];
  PartialSum own;

  // Of a tile
  int num_queries;  // of the group; none where not positive
  int num_steps, k_len, first_limit, limit0, limit1;
  int first_kept;  // step
  int keys;        // key tiles that the producer loaded before

  __device__ __forceinline__ LookupConsumer(const PooledAttnParams& params,
                                            typename Config::Smem& shared, int number,
                                            int kept_steps)
      : p(params),
        smem(shared),
        w(number),
        group(uniform(number % kGroups)),
        part(uniform(number / kGroups)),
        warp(threadIdx.x / 32 % 4),
        lane(threadIdx.x % 32),
        scale_log2(params.scale * 1.44269504f),
        own_row(warp * 16 + (lane >> 2) + (lane & 1) * 8),
        own_piece(lane >> 1 & 1),
        maxima(reinterpret_cast<Word*>(static_cast<char*>(params.workspace) + kCounterBytes) +
               (int64_t{blockIdx.x} * kGroups + group) * kept_steps * (kPieces * kRow)),
        keys(0) {}

  __device__ __forceinline__ void begin(const DenseTile& tile, int kept_steps) {
    num_queries = tile.num_queries - group * kRow;
    num_steps = uniform(tile.num_steps);
    k_len = uniform(tile.k_len);
    const int row = warp * 16 + (lane >> 2), limit = uniform(tile.limit) + group * kRow;
    first_limit = min(limit, k_len - 1);
    limit0 = min(limit + row, k_len - 1);
    limit1 = min(limit + row + 8, k_len - 1);
    first_kept = max(num_steps - kept_steps, 0);
    own = {};
    const uint32_t tile_q = ptx::smem_address(smem.query[group]);
    const int q_row = warp * 16 + lane % 16;
#pragma unroll
    for (int k = 0; k < kK; ++k) {
      const int swizzle = q_row * Config::kRowBytes / 128 % (Config::kRowBytes / 16);
      ptx::ldmatrix_x4(q[k],
                       tile_q + q_row * Config::kRowBytes + ((2 * k + lane / 16) ^ swizzle) * 16);
    }
    __syncwarp();  // all lanes have read queries and tile
    if (lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&smem.query_empty));
  }

  // The n-th key tile of all.
  __device__ __forceinline__ void await(uint32_t n) const {
    ptx::mbarrier_wait(ptx::smem_address(&smem.key_full[n % Config::kStages]),
                       n / Config::kStages & 1);
  }
  __device__ __forceinline__ void release(uint32_t n) const {
    __syncwarp();  // all lanes have read it
    if (lane == 0) {
      ptx::mbarrier_arrive(ptx::smem_address(&smem.key_empty[n % Config::kStages]));
    }
  }
  // Starts the scores of a piece of it.
  template <int kPiece>
  __device__ __forceinline__ void start(uint32_t n) {
    const uint32_t key = ptx::wgmma_descriptor(ptx::smem_address(smem.key[0]), 16) +
                         n % Config::kStages * (Config::kKeyChunk / 16) +
                         kPiece * kPieceKeys * Config::kRowBytes / 16;
    ptx::fence_registers(s[kPiece]);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kK; ++k) {
      Scores::template multiply<typename Config::Element, Config::kRowBytes>(s[kPiece], q[k],
                                                                             key + k * 2, k > 0);
    }
    ptx::wgmma_commit();
  }
  template <int kPiece, int kPending>
  __device__ __forceinline__ Word finish(int step) {
    ptx::wgmma_wait<kPending>();
    ptx::fence_registers(s[kPiece]);
    const int key0 = step * kKeys + kPiece * kPieceKeys;
    if (key0 + kPieceKeys - 1 > first_limit) {
      Scores::hide(s[kPiece], limit0 - key0, limit1 - key0);
    }
    return exchange<Scores, 1>(Scores::largest(s[kPiece], 0), Scores::largest(s[kPiece], 1));
  }
  // The word of this thread's row and piece: its maxima in the step that lies in the n-th key tile, whose products have been
  // started, and are for the `next` one meanwhile.
  template <bool kHasNext>
  __device__ __forceinline__ Word finish_step(int step, uint32_t n, uint32_t next) {
    const Word first = finish<0, 1>(step);
    if constexpr (kHasNext) {
      await(next);
      start<0>(next);
    }
    const Word second = finish<1, kHasNext ? 1 : 0>(step);
    release(n);
    if constexpr (kHasNext) start<1>(next);
    return exchange<Scores, 2>(first, second);
  }

  // Steps of which the group's queries see something: the first ones.
  __device__ __forceinline__ int num_seen() const {
    const int last = num_queries > 0 ? min(first_limit + kRow - 1, k_len - 1) : -1;
    return last < 0 ? 0 : min(last / kKeys + 1, num_steps);
  }

  // finish_step of this consumer's steps, of steps `from` - 1 down to 0 in the key tiles from `keys` on, and take(step, word) of each;
  // those from `seen` on are left out.
  template <class Take>
  __device__ __forceinline__ void walk(int from, int seen, Take take) {
    int i = (part - static_cast<int>(keys % kParts) + kParts) % kParts;
    for (; i < from && from - 1 - i >= seen; i += kParts) {
      await(keys + i);  // else the release would count for the tile before
      release(keys + i);
    }
    // ptxas wants no product under way where a loop begins again: two steps overlap, then the next two.
    for (; i < from; i += 2 * kParts) {
      const int step = from - 1 - i, next = step - kParts;
      await(keys + i);
      start<0>(keys + i);
      start<1>(keys + i);
      if (next < 0) {
        take(step, finish_step<false>(step, keys + i, 0));
        break;
      }
      take(step, finish_step<true>(step, keys + i, keys + i + kParts));
      take(next, finish_step<false>(next, keys + i + kParts, 0));
    }
    keys += from;
  }

  // Waits for all consumers of the group.
  __device__ __forceinline__ void sync_group() const {
    ptx::named_barrier_sync(1 + group, kParts * kWarpgroup);
  }

  // Log-sum-exp of this thread's row, in units of log2: +inf for queries that do not count, or NaN. Also in shared memory.
  __device__ __forceinline__ float finish_sum(const DenseTile& tile) {
    own.merge(__shfl_xor_sync(kAllLanes, own.top, 2), __shfl_xor_sync(kAllLanes, own.sum, 2));
    if constexpr (kParts > 1) {
      if (own_piece == 0) smem.sums[w][own_row] = make_float2(own.top, own.sum);
    }
    sync_group();  // all maxima and sums are written
    if constexpr (kParts > 1) {
      static_assert(kParts == 2);
      const float2 other = smem.sums[w ^ kGroups][own_row];
      own.merge(other.x, other.y);
    }
    const bool is_inside = own_row < num_queries;
    const float lse = is_inside && own.sum != 0.f ? own.top + log2f(own.sum) : INFINITY;
    if (own_piece == 0) {
      smem.lse[w][own_row] = lse;
      if (is_inside && part == 0) {
        const int64_t token = tile.q_begin + group * kRow + own_row;
        p.lse[tile.head * p.total_q + token] = own.sum == 0.f ? -INFINITY : lse * 0.69314718f;
      }
    }
    return lse;
  }

  // Of a step whose maxima were not kept.
  __device__ __forceinline__ void put_again(int step, Word word, float lse, float* map) const {
    // A row that is NaN is so in all blocks that it sees.
    const int seen = isnan(lse) ? min(first_limit + own_row, k_len - 1) + 1 : 0;
    const int nan_end = __reduce_max_sync(kAllLanes, seen);
#pragma unroll
    for (int b = 0; b < Config::kBlocks; ++b) {
      const float score = Scores::of_block(Scores::bits(word), b);
      float largest = isnan(lse) ? -INFINITY : fmaf(score, scale_log2, -lse);
#pragma unroll
      for (const int lanes : {1, 4, 8, 16}) {
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, lanes));
      }
      if (largest > -INFINITY) largest = fmaxf(largest, kSmallestBlockWeight);
      const int64_t block = (int64_t{step} * kPieces + own_piece) * Config::kBlocks + b;
      if ((lane & ~2) == 0 && num_queries > 0 && block < p.num_blocks) {
        put_weight(map + block, block * kRow < nan_end ? nan_weight() : ptx::exp2_approx(largest),
                   true);
      }
    }
  }

  __device__ __forceinline__ void take_tile(const DenseTile& tile, int kept_steps) {
    begin(tile, kept_steps);
    Word* const to = maxima + own_piece * kRow + own_row;
    walk(num_steps, num_seen(), [&](int step, Word word) {
      if (step >= first_kept) to[(step - first_kept) * (kPieces * kRow)] = word;
      own.template add<Scores, Config::kBlocks>(word, scale_log2);
    });
    const float lse = finish_sum(tile);
    float* const map = map_row_of(p, tile, group * kRow);
    if (first_kept > 0) {
      walk(first_kept, first_kept, [&](int step, Word word) { put_again(step, word, lse, map); });
    }
    ptx::named_barrier_sync(1 + kGroups + w, kWarpgroup);  // lse is in shared memory
    if (num_queries > 0) {
      const int64_t skipped = int64_t{first_kept} * kKeys, first_block = skipped / kRow;
      const BlockMaxima m{.maxima = reinterpret_cast<const float*>(maxima),
                          .lse = smem.lse[w],
                          .scale_log2 = scale_log2,
                          .limit = first_limit - static_cast<int>(skipped),
                          .k_len = k_len - static_cast<int>(skipped)};
      write_lookup_row<Config>(m, (num_seen() - first_kept) * kPieces, part * 4 + warp, kParts * 4,
                               map + first_block, p.num_blocks - first_block,
                               map_rows_are_shared(p, kRow));
    }
    sync_group();  // no thread still reads the maxima
  }

  __device__ __forceinline__ void take_tiles(int kept_steps) {
    for (uint32_t n = 0;; ++n) {
      ptx::mbarrier_wait(ptx::smem_address(&smem.query_full), n & 1);
      const DenseTile tile = dense::read_tile(smem.tile[n & 1], lane);
      if (tile.num_queries <= 0) return;
      take_tile(tile, kept_steps);
    }
  }
};

template <class Config>
__global__ void __launch_bounds__(kThreads<Config>, 1)
    score_lookups(const __grid_constant__ attention::Maps maps,
                  const __grid_constant__ PooledAttnParams p,
                  const __grid_constant__ TileOrder order, int kept_steps) {
  run_warpgroups<Config>(maps, p, order, kept_steps, [&](typename Config::Smem& smem, int w) {
    LookupConsumer<Config>(p, smem, w, kept_steps).take_tiles(kept_steps);
  });
}

template <class Element, int kHeadDim>
void run_lookups(const PooledAttnParams& p, void* stream) {
  const auto with = [&]<int kQueries>() {
    using C = LookupConfig<Element, kHeadDim, kQueries>;
    run<C>(p, maps_without_values(p, C::kRowBytes), score_lookups<C>, stream);
  };
  lookup_queries(p) == 256 ? with.template operator()<256>() : with.template operator()<128>();
}

}  // namespace seer::kernels::pooled_sm90
