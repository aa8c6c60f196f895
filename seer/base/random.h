#pragma once
// Counter-based random numbers: a value depends on (seed, stream, counter) alone, so that a resumed
// run, another thread count or another device draws the same numbers.

#include <cmath>
#include <cstdint>
#include <numbers>

namespace seer {

// A 64-bit mix (the finaliser of SplitMix64; Steele et al., OOPSLA 2014).
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Draws in order from one stream of one seed. Copyable; its whole state is the counter.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : key_(mix64(mix64(seed) ^ stream)) {}

  uint64_t next() { return mix64(key_ ^ mix64(counter_++)); }
  // Uniform in [0, n), n > 0.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace seer
