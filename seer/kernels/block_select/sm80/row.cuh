#pragma once
// One row in the hands of one warp: its scores as keys, the cut, the list.

#include <climits>

#include "seer/kernels/block_select/row_rule.h"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels::sm80 {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kMasked = static_cast<int>(0x807fffffu);  // the key of -inf

// Integers in the order of the floats; -0 and +0 are one.
__device__ __forceinline__ int key_of(float score) {
  const int bits = __float_as_int(score + 0.0f);
  return bits ^ (bits >> 31 & INT_MAX);
}
__device__ __forceinline__ float score_of(int key) {
  return __int_as_float(key ^ (key >> 31 & INT_MAX));
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(kAll, x, lane);
  return x;
}

// What is taken: keys above `key`, and the first `ties` that equal it.
struct Cut {
  int key;
  int64_t ties;
};

// Entry i * 32 + lane is lane's i-th. Up to 32 * kItems entries are kept in registers; kItems = 0:
// any number, read again each time.
template <int kItems>
class Row {
 public:
  __device__ __forceinline__ Row(const float* scores, int n) : scores_(scores), n_(n) {
    bool nan = false;
    if constexpr (kItems > 0) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const int at = i * 32 + lane();
        const float score = at < n ? scores[at] : -INFINITY;
        nan |= isnan(score);
        keys_[i] = key_of(score);
      }
    } else {
      for (int at = lane(); at < n; at += 32) nan |= isnan(scores[at]);
    }
    has_nan_ = __any_sync(kAll, nan);
  }

  __device__ __forceinline__ bool has_nan() const { return has_nan_; }
  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }

  // take(key, index) for all entries and some masked ones behind them, 32 at a time, in order.
  template <class Take>
  __device__ __forceinline__ void for_each(const Take& take) const {
    if constexpr (kItems > 0) {
      constexpr int kGroup = 8;
#pragma unroll
      for (int group = 0; group < kItems; group += kGroup) {
        if (group * 32 >= n_) break;
#pragma unroll
        for (int i = group; i < group + kGroup; ++i) take(keys_[i], i * 32 + lane());
      }
    } else {
      for (int i = 0; i < n_; i += 32) {
        const int at = i + lane();
        take(at < n_ ? key_of(scores_[at]) : kMasked, at);
      }
    }
  }

  __device__ __forceinline__ int count_above(int limit) const {
    int count = 0;
    for_each([&](int key, int) { count += key > limit; });
    return __reduce_add_sync(kAll, count);
  }
  // kMasked where all are.
  __device__ __forceinline__ int largest() const {
    int key = kMasked;
    for_each([&](int k, int) { key = max(key, k); });
    return __reduce_max_sync(kAll, key);
  }
  // Of those that are not masked.
  __device__ __forceinline__ int smallest() const {
    int key = INT_MAX;
    for_each([&](int k, int) { key = k == kMasked ? key : min(key, k); });
    return __reduce_min_sync(kAll, key);
  }
  // Sum of exp(score - top) of the keys above `limit`.
  __device__ __forceinline__ double mass_above(int limit, float top) const {
    double mass = 0;
    for_each([&](int key, int) {
      if (key > limit) mass += expf(score_of(key) - top);
    });
    return warp_sum(mass);
  }

  // The k best keys that are not masked.
  __device__ __forceinline__ Cut best(int64_t k) const {
    if (k <= 0) return {INT_MAX, 0};
    const int all = count_above(kMasked);
    if (all <= k) return {kMasked, 0};
    // More than k keys are above `low`, fewer than k above `high`.
    int low = smallest() - 1, high = largest();
    int above_low = all, above_high = 0;
    const int wanted = static_cast<int>(k);
    float guess = expected_best(static_cast<float>(wanted) / static_cast<float>(all), all);
    for (int step = 0; high - static_cast<int64_t>(low) > 1; ++step) {
      const int middle = between(low, high, guess, step);
      const int above = count_above(middle);
      if (above == wanted) return {middle, 0};
      if (above > wanted) {
        low = middle, above_low = above;
      } else {
        high = middle, above_high = above;
      }
      guess = interpolate(low, high, above_low, wanted, fmaxf(above_high, 0.5f));
    }
    return {high, wanted - above_high};
  }

  // The fewest best keys whose exp(score - top) sum to at least `mass`.
  __device__ __forceinline__ Cut best_mass(double mass, float top) const {
    if (mass <= 0) return {INT_MAX, 0};
    const double all = mass_above(kMasked, top);
    if (all < mass) return {kMasked, 0};
    // The keys above `low` have the mass, those above `high` do not.
    int low = smallest() - 1, high = largest();
    double above_low = all, above_high = 0;
    float guess = 0.5f * score_of(low) + 0.5f * score_of(high);
    for (int step = 0; high - static_cast<int64_t>(low) > 1; ++step) {
      const int middle = between(low, high, guess, step);
      const double above = mass_above(middle, top);
      if (above >= mass) {
        low = middle, above_low = above;
      } else {
        high = middle, above_high = above;
      }
      guess = interpolate(low, high, static_cast<float>(above_low), static_cast<float>(mass),
                          fmaxf(static_cast<float>(above_high), 1e-3f));
    }
    // All keys that count now equal `high`: as many of them as the rest needs.
    const double each = expf(score_of(high) - top);
    return {high, static_cast<int64_t>(ceil((mass - above_high) / each))};
  }

 private:
  // A key between the two, neither of them: that of the guess; every third step that of the score in
  // the middle, in case guesses come closer from one side only. After 16 steps the range of keys is
  // halved, which ends after 32 more whatever the scores are.
  __device__ __forceinline__ static int between(int low, int high, float guess, int step) {
    const int half = static_cast<int>((static_cast<int64_t>(high) + low) >> 1);
    if (step >= 16) return half;
    if (step % 3 == 2) guess = 0.5f * score_of(low) + 0.5f * score_of(high);
    return isfinite(guess) ? min(max(key_of(guess), low + 1), high - 1) : half;
  }

  // The score above which `wanted` lies, if what lies above falls exponentially from low to high.
  __device__ __forceinline__ static float interpolate(int low, int high, float above_low,
                                                      float wanted, float above_high) {
    const float from = score_of(low);
    const float share = __fdividef(__log2f(__fdividef(above_low, wanted)),
                                   __log2f(__fdividef(above_low, above_high)));
    return from + share * (score_of(high) - from);
  }

  // The score above which this share of `count` entries lies, if they are normally distributed
  // (Abramowitz and Stegun 26.2.22).
  __device__ __forceinline__ float expected_best(float share, int count) const {
    float sum = 0, squares = 0;
    for_each([&](int key, int) {
      if (key > kMasked) {
        const float score = score_of(key);
        sum += score;
        squares = fmaf(score, score, squares);
      }
    });
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
      sum += __shfl_xor_sync(kAll, sum, lane);
      squares += __shfl_xor_sync(kAll, squares, lane);
    }
    const float each = __fdividef(1.0f, static_cast<float>(count)), mean = sum * each;
    const float deviation = sqrtf(fmaxf(squares * each - mean * mean, 0.0f));
    const float tail = fminf(share, 1 - share);
    const float t = sqrtf(-1.3862944f * __log2f(tail));
    const float z =
        t - __fdividef(fmaf(0.27061f, t, 2.30753f), fmaf(fmaf(0.04481f, t, 0.99229f), t, 1.0f));
    return fmaf(share < 0.5f ? z : -z, deviation, mean);
  }

  const float* scores_;
  int n_;
  bool has_nan_;
  int keys_[kItems > 0 ? kItems : 1];
};

// Writes a row's list: what the cut takes and what is forced. `to_key` turns the row's keys into those
// that the cut was made for.
template <int kItems, class ToKey>
__device__ __forceinline__ void write_list(const BlockSelectParams& p, const SelectRow& row,
                                           const Row<kItems>& scores, const Cut& cut, int64_t at,
                                           const ToKey& to_key) {
  int32_t* list = p.list + p.begin[at];
  const unsigned before = (1u << scores.lane()) - 1;
  const int end = static_cast<int>(row.blocks.end);
  const int forced_end = row.dense ? end : p.forced.sink_blocks;
  const int forced_begin = static_cast<int>(row.blocks.diagonal) - p.forced.local_blocks;
  int count = 0;
  const auto put = [&](bool taken, int n) {
    const unsigned all = __ballot_sync(kAll, taken);
    if (taken) list[count + __popc(all & before)] = n;
    count += __popc(all);
  };
  const auto is_forced = [&](int n) { return n < forced_end || n >= forced_begin; };
  if (cut.ties == 0) {
    scores.for_each([&](int score_key, int n) {
      put(n < end && (to_key(score_key) > cut.key || is_forced(n)), n);
    });
  } else {
    int ties = static_cast<int>(min(cut.ties, int64_t{INT_MAX}));
    scores.for_each([&](int score_key, int n) {
      const int key = to_key(score_key);
      const unsigned equal = __ballot_sync(kAll, n < end && key == cut.key);
      const bool tie = key == cut.key && __popc(equal & before) < ties;
      ties -= min(ties, __popc(equal));
      put(n < end && (key > cut.key || tie || is_forced(n)), n);
    });
  }
  if (scores.lane() == 0) p.count[at] = count;
}

// For a row whose scores are not valid.
__device__ __forceinline__ void write_invalid(const BlockSelectParams& p, int64_t at) {
  if (threadIdx.x % 32 == 0) p.begin[at] = -1, p.count[at] = 0;
}

// The key of a softmax value. They are not negative, so their bits have their order.
__device__ __forceinline__ int softmax_key(int key, float top, float sum) {
  if (key == kMasked) return kMasked;
  return __float_as_int(__fdiv_rn(expf(score_of(key) - top), sum));
}

constexpr int kRowThreads = 128;
constexpr int kRowsPerBlock = kRowThreads / 32;

// The row of this warp, the longest first; -1: there is none.
__device__ __forceinline__ int64_t row_of_warp(const BlockSelectParams& p) {
  return p.num_rows - 1 - (int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32);
}

inline dim3 rows_grid(const BlockSelectParams& p, int heads) {
  return dim3(static_cast<unsigned>((p.num_rows + kRowsPerBlock - 1) / kRowsPerBlock),
              static_cast<unsigned>(heads));
}

// What a rule asks of a head; as many of them as fit among a kernel's arguments.
struct HeadRule {
  double strength;
  BestOfRow best;
  int64_t begin;  // of the head's lists
  int64_t bound;  // entries of a row that is not dense
};
constexpr int kHeadsPerLaunch = 64;
struct HeadRules {
  int first;  // head
  HeadRule at[kHeadsPerLaunch];
};

// head_budget.cu: after the rows have their places.
void select_by_budget(const BlockSelectParams& p, const HeadRules& heads, int count, void* stream);

}  // namespace seer::kernels::sm80
