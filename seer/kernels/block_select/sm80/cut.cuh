#pragma once
// Where a row is cut: searches that count, or sum, what lies above a guess.

#include "seer/kernels/block_select/sm80/row.cuh"

namespace seer::kernels::sm80 {

// Of the scores that are not masked. NaN among them: neither sum is a number.
struct Moments {
  int count;
  float sum, squares;
};

template <class Scores>
__device__ __forceinline__ Moments moments_of(const Scores& scores) {
  const auto over = [&](const auto& counts) {
    Moments m{0, 0, 0};
    scores.for_each([&](float score, int n) {
      if (!counts(score, n)) return;
      ++m.count;
      m.sum += score;
      m.squares = fmaf(score, score, m.squares);
    });
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
      m.sum += __shfl_xor_sync(kAll, m.sum, lane);
      m.squares += __shfl_xor_sync(kAll, m.squares, lane);
    }
    m.sum = of_warp(m.sum), m.squares = of_warp(m.squares);
    return m;
  };
  Moments m = over([&](float, int n) { return scores.exists(n); });
  m.count = scores.size();
  if (m.squares < INFINITY) return m;
  m = over([](float score, int) { return !(score == -INFINITY); });
  m.count = __reduce_add_sync(kAll, m.count);
  return m;
}

// The largest number below `score`; below 0 that of the larger size, -0 being 0.
__device__ __forceinline__ float next_below(float score) {
  return score_of(key_of(score) - (score == 0 ? 2 : 1));
}

// The key in the middle.
__device__ __forceinline__ float halfway(float low, float high) {
  return score_of(static_cast<int>((int64_t{key_of(low)} + key_of(high)) >> 1));
}

// Between `low`, above which there are more than `wanted`, and `high`, above which there are
// `above_high`, fewer: whatever the scores are, the range of keys is halved each time; and where few
// values occur, their number.
template <class Scores>
__device__ __forceinline__ Cut best_by_halving(const Scores& scores, int wanted, float low,
                                               float high, int above_high) {
  for (;;) {
    const float next = scores.largest(high);
    const int from_next = scores.count_from(next);
    if (from_next >= wanted) return {next, wanted - above_high};
    high = next_below(next), above_high = from_next;
    const float middle = halfway(low, high);
    const int above = scores.count_above(middle);
    if (above == wanted) return {middle, 0};
    if (above > wanted) {
      low = middle;
    } else {
      high = middle, above_high = above;
    }
  }
}

// The k >= 1 best scores that are not masked. The first guess is right if scores are normally
// distributed (Abramowitz and Stegun 26.2.22), and so is the distance of scores there, by which guesses
// move until the cut lies between two; then as if scores were spread evenly there.
template <class Scores>
__device__ __forceinline__ Cut best(const Scores& scores, const Moments& moments, int64_t k) {
  if (moments.count <= k) return {-INFINITY, 0};
  const int wanted = static_cast<int>(k);
  const float count = static_cast<float>(moments.count), target = static_cast<float>(wanted);
  const float each = ptx::reciprocal_approx(count), mean = moments.sum * each;
  const float deviation = ptx::sqrt_approx(fmaxf(fmaf(moments.squares, each, -mean * mean), 0.0f));
  const float tail = fminf(target, count - target);
  const float t = ptx::sqrt_approx(-1.3862944f * ptx::log2_approx(tail * each));
  const float z = fmaf(-fmaf(0.27061f, t, 2.30753f),
                       ptx::reciprocal_approx(fmaf(fmaf(0.04481f, t, 0.99229f), t, 1.0f)), t);
  float guess = fmaf(tail == target ? z : -z, deviation, mean);
  // The density there is close to the tail times (t - 0.385).
  float spacing = deviation * ptx::reciprocal_approx(tail * (t - 0.385f));

  float low = -INFINITY, high = INFINITY, above_low = count, above_high = 0;
  constexpr int kGuesses = 10;
  for (int step = 0; step < kGuesses && low < guess && guess < high; ++step) {
    const int found = scores.count_above(guess);
    if (found == wanted) return {guess, 0};
    const float above = static_cast<float>(found);
    if (found > wanted) {
      low = guess, above_low = above;
    } else {
      high = guess, above_high = above;
    }
    const float width = high - low;
    const float share = (above_low - target) * ptx::reciprocal_approx(above_low - above_high);
    guess = width < INFINITY ? fmaf(width, share, low) : fmaf(above - target, spacing, guess);
    spacing += spacing;
  }
  return best_by_halving(scores, wanted, low, high, static_cast<int>(above_high));
}

// The fewest best scores whose exp(score - top) sum to at least `mass`.
template <class Scores>
__device__ __forceinline__ Cut best_mass(const Scores& scores, double mass, float top) {
  if (mass <= 0) return {INFINITY, 0};
  const double all = scores.mass_above(-INFINITY, top);
  if (all < mass) return {-INFINITY, 0};
  // What lies above `low` has the mass, what lies above `high` has not.
  float low = next_below(scores.smallest()), high = top;
  double above_low = all, above_high = 0;
  float guess = 0.5f * low + 0.5f * high;
  for (int step = 0; low < next_below(high); ++step) {
    // Every third guess is the middle, in case the others come closer from one side only. After 16
    // the range of keys is halved, which ends after 32 more whatever the scores are.
    if (step % 3 == 2) guess = 0.5f * low + 0.5f * high;
    if (step >= 16 || !(low < guess && guess < high)) guess = halfway(low, high);
    const double above = scores.mass_above(guess, top);
    if (above >= mass) {
      low = guess, above_low = above;
    } else {
      high = guess, above_high = above;
    }
    // As if what lies above fell exponentially from low to high.
    const float from = static_cast<float>(above_low), wanted = static_cast<float>(mass);
    const float to = fmaxf(static_cast<float>(above_high), 1e-3f);
    const float share =
        __fdividef(__log2f(__fdividef(from, wanted)), __log2f(__fdividef(from, to)));
    guess = fmaf(share, high - low, low);
  }
  // All scores that count now equal `high`: as many of them as the rest needs.
  const double each = expf(high - top);
  return {high, static_cast<int64_t>(ceil((mass - above_high) / each))};
}

}  // namespace seer::kernels::sm80
