#pragma once
// One row in the hands of one warp: its scores and its list. cut.cuh finds the cut between.

#include <climits>
#include <cmath>
#include <type_traits>

#include "seer/kernels/block_select/row_rule.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::kernels::sm80 {

constexpr unsigned kAll = 0xffffffffu;

// Integers in the order of the floats; -0 and +0 are one.
__device__ __forceinline__ int key_of(float score) {
  const int bits = __float_as_int(score + 0.0f);
  return bits ^ (bits >> 31 & INT_MAX);
}
__device__ __forceinline__ float score_of(int key) {
  return __int_as_float(key ^ (key >> 31 & INT_MAX));
}

// A value that all lanes have: this way the compiler knows, and keeps addresses in uniform registers
// across the branches that depend on it.
template <class T>
__device__ __forceinline__ T of_warp(T x) {
  return __shfl_sync(kAll, x, 0);
}

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(kAll, x, lane);
  return x;
}

// The same value, which the compiler does not know: else it keeps score - top of all scores of a row from
// one sum to the next, in registers that there are not.
__device__ __forceinline__ float afresh(float x) {
  asm volatile("" : "+f"(x));
  return x;
}

// What is taken: scores above `score`, and the first `ties` that equal it. {INFINITY, 0}: none;
// {-INFINITY, 0}: all that are not masked.
struct Cut {
  float score;
  int64_t ties;
};

// Sums of exp(score - top) over the scores that are not masked, and how their logarithms are
// distributed, each counted as much as it adds.
struct Masses {
  double all;
  float mean, deviation;  // of score - top
};

// The scores of a row on both sides of a limit.
struct Around {
  float mass;  // of those above it: about what mass_above() gives
  float next;  // the smallest of those; INFINITY: none
  float last;  // the largest of the others; -INFINITY: none
};

// Entry i * 32 + lane is lane's i-th; the first kWhole of every lane exist. Up to 32 * kItems entries
// are kept in registers; kItems = 0: any number, read again each time.
template <int kItems, int kWhole = 0>
class Row {
 public:
  __device__ __forceinline__ Row(const float* scores, int n) : from_(scores), n_(n) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int at = i * 32 + lane();
      scores_[i] = exists(at) ? scores[at] : -INFINITY;
    }
  }

  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ int size() const { return n_; }
  // Of an index of this lane.
  __device__ __forceinline__ bool exists(int n) const { return n < 32 * kWhole || n < n_; }

  // take(score, index) for all entries and some of -inf behind them, 32 at a time, in order.
  template <class Take>
  __device__ __forceinline__ void for_each(const Take& take) const {
    if constexpr (kItems > 0) {
      constexpr int kGroup = 4;
#pragma unroll
      for (int group = 0; group < kItems; group += kGroup) {
        if (group > kWhole && group * 32 >= n_) break;
#pragma unroll
        for (int i = group; i < group + kGroup; ++i) take(scores_[i], i * 32 + lane());
      }
    } else {
      for (int i = 0; i < n_; i += 32) {
        const int at = i + lane();
        take(at < n_ ? from_[at] : -INFINITY, at);
      }
    }
  }

  __device__ __forceinline__ bool has_nan() const {
    bool nan = false;
    for_each([&](float score, int) { nan |= isnan(score); });
    return __any_sync(kAll, nan);
  }
  __device__ __forceinline__ int count_above(float limit) const {
    float count = 0;  // of a lane, far below 2^24
    for_each([&](float score, int) { count += ptx::one_if_above(score, limit); });
    return __reduce_add_sync(kAll, static_cast<int>(count));
  }
  __device__ __forceinline__ int count_from(float limit) const {
    int count = 0;
    for_each([&](float score, int) { count += score >= limit; });
    return __reduce_add_sync(kAll, count);
  }
  // Of those up to `limit`; -inf where there is none.
  __device__ __forceinline__ float largest(float limit = INFINITY) const {
    float best = -INFINITY;
    for_each([&](float score, int) {
      if (score <= limit) best = fmaxf(best, score);
    });
    return score_of(__reduce_max_sync(kAll, key_of(best)));
  }
  // Of those that are not masked.
  __device__ __forceinline__ float smallest() const {
    float best = INFINITY;
    for_each([&](float score, int) {
      if (score > -INFINITY) best = fminf(best, score);
    });
    return score_of(__reduce_min_sync(kAll, key_of(best)));
  }
  __device__ __forceinline__ int count_equal(float value) const {
    int count = 0;
    for_each([&](float score, int) { count += score == value; });
    return __reduce_add_sync(kAll, count);
  }
  // Sum of exp(score - top) of the scores above `limit`.
  __device__ __forceinline__ double mass_above(float limit, float top) const {
    double mass = 0;
    top = afresh(top);
    for_each([&](float score, int) {
      if (score > limit) mass += expf(score - top);
    });
    return warp_sum(mass);
  }
  __device__ __forceinline__ Masses masses(float top) const {
    double all = 0;
    float first = 0, second = 0;
    top = afresh(top);
    for_each([&](float score, int) {
      if (!(score > -INFINITY)) return;
      const float down = score - top, mass = expf(down);
      all += mass;
      first = fmaf(mass, down, first);
      second = fmaf(mass * down, down, second);
    });
    all = warp_sum(all);
    const float each = ptx::reciprocal_approx(static_cast<float>(all));
    const float mean = warp_sum(first) * each;
    return {all, mean, ptx::sqrt_approx(fmaxf(fmaf(warp_sum(second), each, -mean * mean), 0.0f))};
  }
  __device__ __forceinline__ Around around(float limit, float top) const {
    constexpr float kLog2e = 1.4426950408889634f;
    Around found{0, INFINITY, -INFINITY};
    top = afresh(top);
    for_each([&](float score, int) {
      const float mass = ptx::exp2_approx((score - top) * kLog2e);
      found.mass = fmaf(ptx::one_if_above(score, limit), mass, found.mass);
      found.next = fminf(found.next, score > limit ? score : INFINITY);
      found.last = fmaxf(found.last, score > limit ? -INFINITY : score);
    });
    return {warp_sum(found.mass), score_of(__reduce_min_sync(kAll, key_of(found.next))),
            score_of(__reduce_max_sync(kAll, key_of(found.last)))};
  }

 private:
  const float* from_;
  int n_;
  float scores_[kItems > 0 ? kItems : 1];
};

// use(row) with the smallest Row that holds n of up to 32 * kItems entries, so that short rows cost
// less.
template <int kItems, class Use>
__device__ __forceinline__ void with_row(const float* scores, int n, const Use& use) {
  if constexpr (kItems == 0) {
    use(Row<0>(scores, n));
  } else {
    constexpr int kQuarter = kItems / 4;
    if (n <= 32 * kQuarter) return use(Row<kQuarter>(scores, n));
    if (n <= 64 * kQuarter) return use(Row<2 * kQuarter, kQuarter>(scores, n));
    if (n <= 96 * kQuarter) return use(Row<3 * kQuarter, 2 * kQuarter>(scores, n));
    use(Row<kItems, 3 * kQuarter>(scores, n));
  }
}

// Writes a row's list: what the cut takes and what is forced. `to_value` turns the row's scores into
// the values that the cut was made for.
template <class Scores, class ToValue>
__device__ __forceinline__ void write_list(const BlockSelectParams& p, const SelectRow& row,
                                           const Scores& scores, const Cut& cut, int64_t at,
                                           const ToValue& to_value) {
  int32_t* const list = p.list + p.begin[at];
  int count = 0;
  const unsigned before = (1u << scores.lane()) - 1;
  const int forced_end = row.dense ? scores.size() : p.forced.sink_blocks;
  const int forced_begin = static_cast<int>(row.blocks.diagonal) - p.forced.local_blocks;
  const auto put = [&](bool taken, int n) {
    const bool forced = n < forced_end || n >= forced_begin;
    taken = scores.exists(n) && (taken || forced);
    const unsigned all = __ballot_sync(kAll, taken);
    ptx::store_if(taken, list, count + __popc(all & before), n);
    count += __popc(all);
  };
  if (cut.ties == 0) {
    scores.for_each([&](float score, int n) { put(to_value(score) > cut.score, n); });
  } else {
    int ties = static_cast<int>(min(cut.ties, int64_t{INT_MAX}));
    scores.for_each([&](float score, int n) {
      const float value = to_value(score);
      const unsigned equal = __ballot_sync(kAll, scores.exists(n) && value == cut.score);
      const bool tie = value == cut.score && __popc(equal & before) < ties;
      ties -= min(ties, __popc(equal));
      put(value > cut.score || tie, n);
    });
  }
  if (scores.lane() == 0) p.count[at] = count;
}

// For a row whose scores are not valid.
__device__ __forceinline__ void write_invalid(const BlockSelectParams& p, int64_t at) {
  if (threadIdx.x % 32 == 0) p.begin[at] = -1, p.count[at] = 0;
}

// -inf for a masked score.
__device__ __forceinline__ float softmax_value(float score, float top, float sum) {
  return score > -INFINITY ? __fdiv_rn(expf(score - top), sum) : -INFINITY;
}

constexpr int kRowThreads = 128;
constexpr int kRowsPerBlock = kRowThreads / 32;

// The row of this warp, the longest first; -1: there is none.
__device__ __forceinline__ int64_t row_of_warp(const BlockSelectParams& p) {
  const unsigned warp = of_warp(threadIdx.x / 32);
  return p.num_rows - 1 - (int64_t{blockIdx.x} * kRowsPerBlock + warp);
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
