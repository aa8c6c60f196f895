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

// How many deviations above its mean a normal distribution has a tail of this share, up to a half
// (Abramowitz and Stegun 26.2.22); and how far the share's logarithm is, which the density there goes by.
struct Tail {
  float away, t;
};
__device__ __forceinline__ Tail deviations_of_tail(float share) {
  const float t = ptx::sqrt_approx(-1.3862944f * ptx::log2_approx(share));
  const float below = ptx::reciprocal_approx(fmaf(fmaf(0.04481f, t, 0.99229f), t, 1.0f));
  return {fmaf(-fmaf(0.27061f, t, 2.30753f), below, t), t};
}

// The k >= 1 best scores that are not masked. The first guess is right if scores are normally
// distributed, and so is the distance of scores there, by which guesses
// move until the cut lies between two; then as if scores were spread evenly there.
template <class Scores>
__device__ __forceinline__ Cut best(const Scores& scores, const Moments& moments, int64_t k) {
  if (moments.count <= k) return {-INFINITY, 0};
  const int wanted = static_cast<int>(k);
  const float count = static_cast<float>(moments.count), target = static_cast<float>(wanted);
  const float each = ptx::reciprocal_approx(count), mean = moments.sum * each;
  const float deviation = ptx::sqrt_approx(fmaxf(fmaf(moments.squares, each, -mean * mean), 0.0f));
  const float tail = fminf(target, count - target);
  const auto [away, t] = deviations_of_tail(tail * each);
  float guess = fmaf(tail == target ? away : -away, deviation, mean);
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

// The exact end of best_mass(): what lies above `low` has the mass, what lies above `high` has not.
template <class Scores>
__device__ __forceinline__ Cut best_mass_by_halving(const Scores& scores, double mass, float top,
                                                    float low, float high) {
  for (;;) {
    const float next = scores.largest(high);
    const float below = next_below(next);
    if (scores.mass_above(below, top) >= mass) {
      const double missing = mass - scores.mass_above(next, top);
      return {next, static_cast<int64_t>(ceil(missing / expf(next - top)))};
    }
    high = below;
    const float middle = halfway(low, high);
    (scores.mass_above(middle, top) >= mass ? low : high) = middle;
  }
}

// The fewest best scores whose exp(score - top) sum to at least `share` of all.
//
// A guess that falls next to the cut finds it. The first is right if the logarithms of the masses are
// normally distributed; then as if mass were spread evenly between the two guesses around the cut,
// every fourth time in their middle. f32 sums decide, except where one comes so close to the mass
// that it may be on the other side: there sums in f64 do, as in all that the guesses leave over (equal
// scores, mostly).
template <class Scores>
__device__ __forceinline__ Cut best_mass(const Scores& scores, const Masses& masses, double share,
                                         float top) {
  const double mass = share * masses.all;
  if (mass <= 0) return {INFINITY, 0};
  if (masses.all < mass) return {-INFINITY, 0};
  const auto wanted = static_cast<float>(mass), all = static_cast<float>(masses.all);
  // What Around's mass may be off: roundings of a lane's sum, of the lanes', of the exponentials.
  const float slack = 1.2e-7f * static_cast<float>(scores.size() / 32 + 16) * all;

  float low = next_below(scores.smallest()), high = top, mass_low = all, mass_high = 0;
  const auto tail = static_cast<float>(fmin(share, 1 - share));
  const float away = deviations_of_tail(tail).away * masses.deviation;
  float guess = top + masses.mean + (share < 0.5 ? away : -away);
  constexpr int kGuesses = 16;
  for (int step = 0; step < kGuesses; ++step) {
    if (step % 4 == 3 || !(low < guess && guess < high)) guess = 0.5f * low + 0.5f * high;
    if (!(low < guess && guess < high)) break;
    const Around found = scores.around(guess, top);
    const float beyond = found.mass - wanted;
    if (fabsf(beyond) > slack ? beyond > 0 : scores.mass_above(guess, top) >= mass) {
      if (expf(found.next - top) - beyond > slack) {  // the smallest of them brings it
        if (scores.count_equal(found.next) == 1) return {found.next, 1};
        return best_mass_by_halving(scores, mass, top, next_below(found.next), found.next);
      }
      low = next_below(found.next), mass_low = found.mass;
    } else {
      if (expf(found.last - top) + beyond > slack) return {found.last, 1};
      high = found.last, mass_high = found.mass;
    }
    guess = fmaf(__fdividef(mass_low - wanted, mass_low - mass_high), high - low, low);
  }
  return best_mass_by_halving(scores, mass, top, low, high);
}

}  // namespace seer::kernels::sm80
