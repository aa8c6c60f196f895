#pragma once
// What a consumer warpgroup does with a tile: the walk over its keys.

#include "seer/kernels/attention/sm90/dense/consumer.cuh"

namespace seer::kernels::attention::dense {

// Hardware barrier of consumer w; 0 is __syncthreads().
constexpr int barrier_of(int w) {
  return 1 + w;
}

// The n-th use of a ring.
template <int kStages>
struct Place {
  uint32_t slot, parity;
  __device__ __forceinline__ explicit Place(uint32_t n)
      // The same in all lanes; the shuffle tells the compiler.
      : slot(__shfl_sync(kAllLanes, n % kStages, 0)), parity(n / kStages & 1) {}
};

// A consumer's tile, beside the scores.
template <class Config>
struct Walk {
  using P = Place<Config::kStages>;

  Consumer<Config>& x;
  typename Config::Smem& smem;
  const int w;            // consumer
  const int num_queries;  // of this consumer; none where not positive
  const int num_steps, k_len, first_limit;
  const int limit0, limit1;  // last keys that this thread's rows see
  const int first_kept;      // step

  __device__ __forceinline__ Walk(Consumer<Config>& consumer, typename Config::Smem& s, int number,
                                  const DenseTile& tile, int kept_steps)
      : x(consumer),
        smem(s),
        w(number),
        num_queries(tile.num_queries - number * kRow),
        num_steps(tile.num_steps),
        k_len(tile.k_len),
        first_limit(ptx::opaque(min(tile.limit + w * kRow, k_len - 1))),
        limit0(ptx::opaque(min(tile.limit + w * kRow + row(), k_len - 1))),
        limit1(ptx::opaque(min(tile.limit + w * kRow + row() + 8, k_len - 1))),
        first_kept(max(tile.num_steps - kept_steps, 0)) {}

  __device__ __forceinline__ int row() const { return x.warp * 16 + (x.lane >> 2); }

  __device__ __forceinline__ static void await(uint64_t (&full)[Config::kStages], const P& at) {
    ptx::mbarrier_wait(ptx::smem_address(&full[at.slot]), at.parity);
  }
  __device__ __forceinline__ void release(uint64_t (&empty)[Config::kStages], const P& at) const {
    __syncwarp();  // all lanes have read it
    if (x.lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&empty[at.slot]));
  }
  // The producer may load the next queries, and write over the tile before this one.
  __device__ __forceinline__ void release_queries() const {
    __syncwarp();
    if (x.lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&smem.query_empty));
  }
  __device__ __forceinline__ void mask(int step) const {
    const int key0 = step * kKeys;
    if (key0 + kKeys - 1 > first_limit) attention::mask(x.rS, limit0 - key0, limit1 - key0);
  }
  // Masked scores of a step; `key`: how many key tiles were read before its own.
  __device__ __forceinline__ void compute_scores(int step, uint32_t key) const {
    const P k(key);
    await(smem.key_full, k);
    x.start_scores(ptx::smem_address(smem.key[k.slot]));
    x.template await_scores<0>();
    release(smem.key_empty, k);
    mask(step);
  }

  // Steps whose scores are computed. Without values a consumer leaves out those of which its queries
  // see nothing.
  __device__ __forceinline__ int num_computed() const {
    if constexpr (Config::kHasValues) {
      return num_steps;
    } else {
      const int last = num_queries > 0 ? min(first_limit + kRow - 1, k_len - 1) : -1;
      return last < 0 ? 0 : min(last / kKeys + 1, num_steps);
    }
  }

  // All steps where there are no values; `keys`: tiles read before.
  __device__ __forceinline__ void sum_up(uint32_t keys) const {
    int step = num_steps - 1;
    for (const int first = num_computed(); step >= first; --step, ++keys) {
      const P k(keys);
      await(smem.key_full, k);  // else the release would count for the tile before
      release(smem.key_empty, k);
    }
    for (; step >= 0; --step, ++keys) {
      compute_scores(step, keys);
      x.softmax(step - first_kept);
    }
    if (num_steps > 0 && first_kept == 0) release_queries();
  }

  // All steps; `keys`, `values`: tiles read before.
  __device__ __forceinline__ void attend(uint32_t keys, uint32_t values) const {
    // 1. The last keys. Only their tile can reach past the sequence's end.
    {
      const P v(values);
      compute_scores(num_steps - 1, keys);
      x.softmax(num_steps - 1 - first_kept);
      x.pack_weights();
      if (k_len < num_steps * kKeys) {
        await(smem.value_full, v);
        // Each consumer clears for itself: both write the same.
        clear_rows<kKeys, Config::kHeadDim>(smem.value[v.slot], k_len - (num_steps - 1) * kKeys,
                                            barrier_of(w));
      }
    }
    // 2. Scores of the next keys together with the output of these.
    for (int i = 1; i < num_steps; ++i) {
      const P k(keys + i), v(values + i - 1);
      await(smem.key_full, k);
      x.start_scores(ptx::smem_address(smem.key[k.slot]));
      x.scale_output();
      await(smem.value_full, v);
      x.start_output(ptx::smem_address(smem.value[v.slot]));
      x.template await_scores<1>();
      release(smem.key_empty, k);
      mask(num_steps - 1 - i);
      x.softmax(num_steps - 1 - i - first_kept);
      x.await_output_after_weights(&smem.sums[w * kWarpgroup + threadIdx.x % kWarpgroup]);
      release(smem.value_empty, v);
      x.pack_weights();
    }
    // 3. The output of the first keys.
    if (first_kept == 0) release_queries();
    const P v(values + num_steps - 1);
    x.scale_output();
    await(smem.value_full, v);
    x.start_output(ptx::smem_address(smem.value[v.slot]));
    x.await_output();
    release(smem.value_empty, v);
  }
};

// The tile that the producer announces, for a warp; lane 0, which releases the place, reads it.
__device__ __forceinline__ DenseTile read_tile(const DenseTile& announced, int lane) {
  struct Words {
    int at[sizeof(DenseTile) / sizeof(int)];
  } words{};
  if (lane == 0) words = __builtin_bit_cast(Words, announced);
#pragma unroll
  for (int& word : words.at) word = __shfl_sync(kAllLanes, word, 0);
  return __builtin_bit_cast(DenseTile, words);
}

// All tiles, as the producer announces them: o and lse, and `after(walk, keys, tile)` of each; it adds
// the key tiles that it reads to `keys`.
template <class Config, class AfterTile>
__device__ __forceinline__ void attend_tiles(const PackedAttentionParams& p, int kept_steps,
                                             typename Config::Smem& smem, int w, float* maxima,
                                             AfterTile after) {
  Consumer<Config> x(p.scale, ptx::smem_address(smem.query[w]), maxima);
  uint32_t keys = 0, values = 0;  // tiles read
  for (uint32_t n = 0;; ++n) {
    ptx::mbarrier_wait(ptx::smem_address(&smem.query_full), n & 1);
    const DenseTile tile = read_tile(smem.tile[n & 1], x.lane);
    if (tile.num_queries <= 0) return;
    const Walk<Config> walk(x, smem, w, tile, kept_steps);
    x.begin();
    if constexpr (Config::kHasValues) {
      if (walk.num_steps > 0) walk.attend(keys, values);
      values += walk.num_steps;
    } else {
      walk.sum_up(keys);
    }
    keys += walk.num_steps;
    x.store(p, tile.head, tile.q_begin + w * kRow, walk.num_queries, smem.lse[w]);
    after(walk, keys, tile);
  }
}

template <class Config>
__device__ __forceinline__ void init_barriers(typename Config::Smem& smem) {
  const auto init = [](uint64_t& bar, int count) {
    ptx::mbarrier_init(ptx::smem_address(&bar), count);
  };
  init(smem.query_full, 1);
  init(smem.query_empty, 4 * Config::kConsumers);  // their warps
  for (int i = 0; i < Config::kStages; ++i) {
    init(smem.key_full[i], 1);
    if constexpr (Config::kHasValues) init(smem.value_full[i], 1);
    init(smem.key_empty[i], 4 * Config::kReaders);
    if constexpr (Config::kHasValues) init(smem.value_empty[i], 4 * Config::kConsumers);
  }
  ptx::fence_mbarrier_init();
}

}  // namespace seer::kernels::attention::dense
