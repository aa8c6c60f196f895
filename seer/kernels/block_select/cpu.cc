// Choice of blocks. Scores become integers of the same order; the k-th best of them is found by
// halving the range of values and counting, which needs no sort and makes ties exact.

#include "seer/kernels/block_select/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/block_select/cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

#include "seer/base/error.h"
#include "seer/kernels/block_select/row_rule.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;
// Half as many f32 as a vector holds, so that they widen to one vector of f64.
using DH = hn::CappedTag<float, HWY_MAX(1, HWY_MAX_BYTES / sizeof(double))>;
using D64 = hn::Rebind<double, DH>;

constexpr int32_t kMasked = std::bit_cast<int32_t>(0x807fffffu);  // the key of -inf

template <class Tag>
int64_t lanes_of(Tag d) {
  return static_cast<int64_t>(hn::Lanes(d));
}

int64_t padded(int64_t n) {
  return (n + lanes_of(D()) - 1) / lanes_of(D()) * lanes_of(D());
}

// What is taken: keys above `key`, and the first `ties` that equal it.
struct Cut {
  int32_t key;
  int64_t ties;
};

// The scores of one row as keys and, where the rule needs them, as exp(score - max).
struct ScoreRow {
  std::vector<int32_t> keys;  // padded with kMasked
  std::vector<float> exps;    // padded with 0
  double sum = 0;             // of exps
  bool valid = true;          // no NaN; and no +inf where a softmax is wanted

  void load(const float* scores, int64_t n);
  void softmax(const float* scores, int64_t n);
};

HWY_INLINE void store_keys(D d, const float* from, int32_t* to, hn::Mask<D>* is_nan) {
  const DI di;
  const auto s = hn::Add(hn::LoadU(d, from), hn::Zero(d));  // -0 becomes +0: they are a tie
  const auto bits = hn::BitCast(di, s);
  const auto flip = hn::And(hn::ShiftRight<31>(bits), hn::Set(di, 0x7fffffff));
  hn::StoreU(hn::Xor(bits, flip), di, to);
  *is_nan = hn::Or(*is_nan, hn::Not(hn::Eq(s, s)));  // Ne() is false for NaN
}

void ScoreRow::load(const float* scores, int64_t n) {
  const D d;
  keys.assign(padded(n), kMasked);
  auto is_nan = hn::MaskFromVec(hn::Zero(d));
  int64_t i = 0;
  for (; i + lanes_of(d) <= n; i += lanes_of(d)) store_keys(d, scores + i, &keys[i], &is_nan);
  if (i < n) {
    alignas(64) float rest[HWY_MAX_BYTES / sizeof(float)];
    std::fill(std::begin(rest), std::end(rest), -INFINITY);
    std::copy(scores + i, scores + n, rest);
    store_keys(d, rest, &keys[i], &is_nan);
  }
  valid = hn::AllFalse(d, is_nan);
}

void ScoreRow::softmax(const float* scores, int64_t n) {
  const DH d;
  exps.assign(padded(n), -INFINITY);
  std::copy_n(scores, n, exps.begin());
  const int64_t size = static_cast<int64_t>(exps.size());
  auto top = hn::Set(d, -INFINITY);
  for (int64_t i = 0; i < size; i += lanes_of(d)) top = hn::Max(top, hn::LoadU(d, &exps[i]));
  const float max = hn::GetLane(hn::MaxOfLanes(d, top));
  auto total = hn::Zero(D64());
  if (!(max < INFINITY)) valid = false;
  if (max == -INFINITY || !valid) {
    std::fill(exps.begin(), exps.end(), 0.0f);
  } else {
    const auto shift = hn::Set(d, max);
    for (int64_t i = 0; i < size; i += lanes_of(d)) {
      const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, &exps[i]), shift));
      total = hn::Add(total, hn::PromoteTo(D64(), e));
      hn::StoreU(e, d, &exps[i]);
    }
  }
  sum = hn::GetLane(hn::SumOfLanes(D64(), total));
}

int64_t count_above(const std::vector<int32_t>& keys, int32_t key) {
  const DI di;
  const auto limit = hn::Set(di, key);
  size_t count = 0;
  for (size_t i = 0; i < keys.size(); i += hn::Lanes(di)) {
    count += hn::CountTrue(di, hn::Gt(hn::LoadU(di, &keys[i]), limit));
  }
  return static_cast<int64_t>(count);
}

// The k best keys that are not masked; ties go to the lower index.
Cut best(const std::vector<int32_t>& keys, int64_t k) {
  if (k <= 0) return {INT32_MAX, 0};
  if (count_above(keys, kMasked) <= k) return {kMasked, 0};
  // More than k keys are above `low`, fewer than k above `high`.
  int64_t low = kMasked, high = INT32_MAX;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const int64_t above = count_above(keys, static_cast<int32_t>(middle));
    if (above == k) return {static_cast<int32_t>(middle), 0};
    (above > k ? low : high) = middle;
  }
  const int32_t key = static_cast<int32_t>(high);
  return {key, k - count_above(keys, key)};
}

double mass_above(const ScoreRow& row, int64_t key) {
  const DH d;
  const hn::RebindToSigned<DH> di;
  const auto limit = hn::Set(di, static_cast<int32_t>(key));
  auto mass = hn::Zero(D64());
  for (size_t i = 0; i < row.keys.size(); i += hn::Lanes(d)) {
    const auto above = hn::RebindMask(d, hn::Gt(hn::LoadU(di, &row.keys[i]), limit));
    mass =
        hn::Add(mass, hn::PromoteTo(D64(), hn::IfThenElseZero(above, hn::LoadU(d, &row.exps[i]))));
  }
  return hn::GetLane(hn::SumOfLanes(D64(), mass));
}

// The fewest best keys with at least this mass (of row.sum).
Cut best_mass(const ScoreRow& row, double mass) {
  if (mass <= 0 || row.sum == 0) return {INT32_MAX, 0};
  if (mass_above(row, kMasked) < mass) return {kMasked, 0};
  // The keys above `low` have the mass, those above `high` do not.
  int64_t low = kMasked, high = INT32_MAX;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (mass_above(row, middle) >= mass ? low : high) = middle;
  }
  // All keys that count now equal `high`: as many of them as the rest needs.
  const auto first = std::find(row.keys.begin(), row.keys.end(), static_cast<int32_t>(high));
  const double each = row.exps[first - row.keys.begin()];
  const double missing = mass - mass_above(row, high);
  return {static_cast<int32_t>(high), static_cast<int64_t>(std::ceil(missing / each))};
}

// Softmax values as keys: they are not negative, so their bits have their order.
void keys_from_softmax(const ScoreRow& row, int64_t n, int32_t* keys) {
  const float sum = static_cast<float>(row.sum);
  for (int64_t i = 0; i < n; ++i) {
    keys[i] = row.keys[i] == kMasked ? kMasked : std::bit_cast<int32_t>(row.exps[i] / sum);
  }
}

// Writes the row's list: what the cut takes and what is forced, and the rest of its place. `ties` of the
// cut are used up.
void write_list(const BlockSelectParams& p, const SelectRow& row, const int32_t* keys, Cut* cut,
                int64_t at) {
  int32_t* list = p.list + p.begin[at];
  int32_t count = 0;
  for (int64_t n = 0; n < row.blocks.end; ++n) {
    const bool tie = keys[n] == cut->key && cut->ties > 0;
    cut->ties -= tie;
    list[count] = static_cast<int32_t>(n);
    count += tie || keys[n] > cut->key || row.forced(p, n);
  }
  p.count[at] = count;
  const int64_t bound = row_bound(p, static_cast<int>(at / p.num_rows));
  std::fill(list + count, list + place_size(row, bound), kNoBlock);
}

// Places in `list`, one row after another; each head's part ends where its capacity does.
void place_rows(const BlockSelectParams& p) {
  int64_t end = 0;
  for (int h = 0; h < p.num_heads; ++h) {
    const int64_t bound = row_bound(p, h);
    int64_t next = end;
    end += head_capacity(p, bound);
    for (int b = 0; b < p.num_seqs; ++b) {
      for (int64_t m = 0; m < p.cu_rows[b + 1] - p.cu_rows[b]; ++m) {
        const SelectRow row = select_row(p, b, m);
        p.begin[h * p.num_rows + p.cu_rows[b] + m] = next;
        next += place_size(row, bound);
      }
    }
    SEER_CHECK(next <= end, "block_select: the rows of head ", h, " need ", next - end,
               " entries more than they can");
    std::fill(p.list + next, p.list + end, kNoBlock);
  }
}

// False where the scores are not valid.
bool select_one_row(const BlockSelectParams& p, int64_t h, int64_t r, ScoreRow& work) {
  const int b = sequence_of(p.cu_rows, p.num_seqs, r);
  const SelectRow row = select_row(p, b, r - p.cu_rows[b]);
  const int64_t at = h * p.num_rows + r, n = row.blocks.end;
  const float* scores = p.scores + at * p.num_blocks;
  work.load(scores, n);
  Cut cut{INT32_MAX, 0};
  if (select_rule(p.rule).best_of_row) {
    cut = best(work.keys, best_of_row(p, static_cast<int>(h)).of(row.num_key_blocks));
  } else {
    work.softmax(scores, n);
    if (p.rule == SelectRule::top_p) {
      cut = best_mass(work, p.strength[h] * work.sum);
    } else {
      keys_from_softmax(work, n, work.keys.data());
      cut.key = std::bit_cast<int32_t>(static_cast<float>(p.strength[h]));
    }
  }
  write_list(p, row, work.keys.data(), &cut, at);
  return work.valid;
}

// The rows of one sequence share one budget. False where the scores are not valid.
bool select_one_head(const BlockSelectParams& p, int64_t h, int b, ScoreRow& work,
                     std::vector<int32_t>& keys) {
  const int64_t rows = p.cu_rows[b + 1] - p.cu_rows[b], first = h * p.num_rows + p.cu_rows[b];
  std::vector<SelectRow> all(rows);
  std::vector<int64_t> begin(rows + 1);
  for (int64_t m = 0; m < rows; ++m) {
    all[m] = select_row(p, b, m);
    begin[m + 1] = begin[m] + all[m].blocks.end;
  }
  keys.assign(padded(begin[rows]), kMasked);
  bool valid = true;
  for (int64_t m = 0; m < rows; ++m) {
    const float* scores = p.scores + (first + m) * p.num_blocks;
    work.load(scores, all[m].blocks.end);
    work.softmax(scores, all[m].blocks.end);
    keys_from_softmax(work, all[m].blocks.end, keys.data() + begin[m]);
    valid = valid && work.valid;
  }
  const double budget = p.strength[h] * static_cast<double>(begin[rows]);
  Cut cut = best(keys, static_cast<int64_t>(budget));
  for (int64_t m = 0; m < rows; ++m) {
    write_list(p, all[m], keys.data() + begin[m], &cut, first + m);
  }
  return valid;
}

void block_select(const BlockSelectParams& p) {
  place_rows(p);
  int64_t bad = INT64_MAX;  // the first head (times the rows) whose scores are not valid
#pragma omp parallel reduction(min : bad)
  {
    ScoreRow work;
    std::vector<int32_t> keys;
    if (p.rule == SelectRule::head_budget) {
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t h = 0; h < p.num_heads; ++h) {
        for (int b = 0; b < p.num_seqs; ++b) {
          if (!select_one_head(p, h, b, work, keys)) bad = std::min(bad, h);
        }
      }
    } else {
#pragma omp for collapse(2) schedule(dynamic, 16)
      for (int64_t h = 0; h < p.num_heads; ++h) {
        for (int64_t r = 0; r < p.num_rows; ++r) {
          if (!select_one_row(p, h, r, work)) bad = std::min(bad, h);
        }
      }
    }
  }
  SEER_CHECK(bad == INT64_MAX, "block_select: the scores of head ", bad,
             " hold NaN or an infinity; check the gate's weights and the model's activations");
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(block_select);
void block_select_cpu(const BlockSelectParams& p) {
  HWY_DYNAMIC_DISPATCH(block_select)(p);
}

}  // namespace seer::kernels
#endif
