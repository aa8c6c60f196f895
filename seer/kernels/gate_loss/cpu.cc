// Loss and gradient of a row in four passes over padded copies of its scores and targets.

#include "seer/kernels/gate_loss/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/gate_loss/cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "seer/base/error.h"
#include "seer/kernels/row_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
// Half as many f32 as a vector holds, so that they widen to one vector of f64.
using D = hn::CappedTag<float, HWY_MAX(1, HWY_MAX_BYTES / sizeof(double))>;
using D64 = hn::Rebind<double, D>;
using V = hn::Vec<D>;

// A sum in f64 of f32 vectors.
struct Sum {
  hn::Vec<D64> sum;
  void add(V x) { sum = hn::Add(sum, hn::PromoteTo(D64(), x)); }
  double total() const { return hn::GetLane(hn::SumOfLanes(D64(), sum)); }
};

// One row: n columns padded to whole vectors, scores with -inf and targets with 0.
struct LossRow {
  std::vector<float> s, t, grad;
  int64_t padded = 0;
  bool valid = true;  // no target where the scores are masked

  void load(const float* scores, const float* target, int64_t n) {
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
    padded = (n + lanes - 1) / lanes * lanes;
    s.assign(padded, -INFINITY);
    t.assign(padded, 0.0f);
    grad.assign(padded, 0.0f);
    std::copy_n(scores, n, s.begin());
    std::copy_n(target, n, t.begin());
  }
};

// Leaves exp(s - max) in row.grad. False where nothing is to be learned: all masked, or no target,
// and no NaN among the scores, which must stay to be seen: target_sum is then NaN.
HWY_INLINE bool exponentials(LossRow& row, float* max, double* exp_sum, double* target_sum) {
  const D d;
  const auto masked = hn::Set(d, -INFINITY);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto top = masked;
  auto has_mass = hn::MaskFromVec(hn::Zero(d));  // where it must have none
  Sum targets{hn::Zero(D64())};
  for (int64_t i = 0; i < row.padded; i += lanes) {
    const auto s = hn::LoadU(d, &row.s[i]), t = hn::LoadU(d, &row.t[i]);
    const auto is_masked = hn::Eq(s, masked);
    top = hn::Max(s, top);
    has_mass = hn::Or(has_mass, hn::And(is_masked, hn::Not(hn::Eq(t, hn::Zero(d)))));
    targets.add(hn::IfThenElse(is_masked, hn::Zero(d), hn::IfThenElse(hn::Eq(s, s), t, s)));
  }
  row.valid = hn::AllFalse(d, has_mass);
  *max = hn::GetLane(hn::MaxOfLanes(d, top));
  *target_sum = targets.total();
  if (!std::isnan(*target_sum) && (*max == -INFINITY || *target_sum == 0)) return false;
  Sum exps{hn::Zero(D64())};
  const auto shift = hn::Set(d, *max);
  for (int64_t i = 0; i < row.padded; i += lanes) {
    const auto x = hn::Sub(hn::LoadU(d, &row.s[i]), shift);
    // Exp() makes 0 of NaN, which must stay to be seen.
    const auto e = hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, x), x);
    exps.add(e);
    hn::StoreU(e, d, &row.grad[i]);
  }
  *exp_sum = exps.total();
  return true;
}

// Sum of target * (log target - log_softmax(scores)); row.grad becomes its gradient times `weight`.
HWY_INLINE double kl_row(LossRow& row, double weight) {
  const D d;
  float max = 0;
  double exp_sum = 0, target_sum = 0;
  if (!exponentials(row, &max, &exp_sum, &target_sum)) return 0;
  const auto masked = hn::Set(d, -INFINITY);
  const auto log_sum = hn::Set(d, static_cast<float>(std::log(exp_sum)));
  const auto shift = hn::Set(d, max), scale = hn::Set(d, static_cast<float>(weight));
  const auto mass = hn::Set(d, static_cast<float>(target_sum / exp_sum));
  Sum loss{hn::Zero(D64())};
  for (int64_t i = 0; i < row.padded; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto s = hn::LoadU(d, &row.s[i]), t = hn::LoadU(d, &row.t[i]);
    const auto is_masked = hn::Eq(s, masked);
    const auto log_p = hn::Sub(hn::Sub(s, shift), log_sum);
    const auto log_t = hn::IfThenElseZero(hn::Gt(t, hn::Zero(d)), hn::Log(d, t));
    loss.add(hn::IfThenElse(is_masked, hn::Zero(d), hn::Mul(t, hn::Sub(log_t, log_p))));
    const auto grad = hn::Sub(hn::Mul(hn::LoadU(d, &row.grad[i]), mass), t);
    hn::StoreU(hn::IfThenElse(is_masked, hn::Zero(d), hn::Mul(grad, scale)), d, &row.grad[i]);
  }
  return loss.total();
}

// Sum of (softmax(scores) - target)^2; row.grad becomes its gradient times `weight`.
HWY_INLINE double mse_row(LossRow& row, double weight) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float max = 0;
  double exp_sum = 0, target_sum = 0;
  if (!exponentials(row, &max, &exp_sum, &target_sum)) return 0;
  const auto masked = hn::Set(d, -INFINITY);
  const auto normalise = hn::Set(d, static_cast<float>(1 / exp_sum));
  Sum loss{hn::Zero(D64())}, dot{hn::Zero(D64())};
  for (int64_t i = 0; i < row.padded; i += lanes) {
    const auto is_masked = hn::Eq(hn::LoadU(d, &row.s[i]), masked);
    const auto p = hn::Mul(hn::LoadU(d, &row.grad[i]), normalise);
    const auto difference =
        hn::IfThenElse(is_masked, hn::Zero(d), hn::Sub(p, hn::LoadU(d, &row.t[i])));
    loss.add(hn::Mul(difference, difference));
    dot.add(hn::Mul(p, difference));
  }
  const auto mean = hn::Set(d, static_cast<float>(dot.total()));
  const auto scale = hn::Set(d, static_cast<float>(2 * weight));
  for (int64_t i = 0; i < row.padded; i += lanes) {
    const auto p = hn::Mul(hn::LoadU(d, &row.grad[i]), normalise);  // 0 where masked
    const auto difference = hn::Sub(p, hn::LoadU(d, &row.t[i]));
    hn::StoreU(hn::Mul(hn::Mul(p, hn::Sub(difference, mean)), scale), d, &row.grad[i]);
  }
  return loss.total();
}

// Which rows of a sequence count, and what one squared difference or one term weighs in the loss.
struct Sequence {
  int64_t first, end, key_blocks;
  double weight;
};

std::vector<Sequence> sequences(const GateLossParams& p) {
  std::vector<Sequence> out;
  int counted = 0;
  for (int b = 0; b < p.num_seqs; ++b) {
    const int64_t rows = p.cu_rows[b + 1] - p.cu_rows[b];
    const int64_t left_out = static_cast<int64_t>(std::floor(p.skip * static_cast<double>(rows)));
    Sequence s{p.cu_rows[b] + left_out, p.cu_rows[b + 1], p.num_key_blocks[b], 0};
    const double elements = static_cast<double>(p.num_heads) *
                            static_cast<double>(s.end - s.first) *
                            static_cast<double>(s.key_blocks);
    if (elements > 0) {
      s.weight = 1 / elements;
      ++counted;
    }
    out.push_back(s);
  }
  for (Sequence& s : out) s.weight /= std::max(counted, 1);
  return out;
}

void gate_loss(const GateLossParams& p) {
  const std::vector<Sequence> all = sequences(p);
  std::vector<double> row_loss(p.num_heads * p.num_rows);
  int64_t bad = INT64_MAX;  // the first head and row whose target is not valid
#pragma omp parallel reduction(min : bad)
  {
    LossRow row;
#pragma omp for collapse(2) schedule(dynamic, 16)
    for (int64_t h = 0; h < p.num_heads; ++h) {
      for (int64_t r = 0; r < p.num_rows; ++r) {
        const Sequence& s = all[sequence_of(p.cu_rows, p.num_seqs, r)];
        const int64_t at = (h * p.num_rows + r) * p.num_blocks;
        std::fill_n(p.dscores + at, p.num_blocks, 0.0f);
        if (r < s.first || s.key_blocks == 0) continue;
        row.load(p.scores + at, p.target + at, s.key_blocks);
        const double loss = p.kind == GateLoss::kl ? kl_row(row, s.weight) : mse_row(row, s.weight);
        row_loss[h * p.num_rows + r] = loss * s.weight;
        std::copy_n(row.grad.begin(), s.key_blocks, p.dscores + at);
        if (!row.valid) bad = std::min(bad, h * p.num_rows + r);
      }
    }
  }
  SEER_CHECK(bad == INT64_MAX, "gate_loss: the target of head ",
             bad / std::max<int64_t>(p.num_rows, 1), ", row ",
             bad % std::max<int64_t>(p.num_rows, 1),
             " has mass on a masked key block, whose score is -inf; want 0 there");
  double total = 0;  // in a fixed order, whatever thread had which row
  for (const double loss : row_loss) total += loss;
  *p.loss = total;
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(gate_loss);
void gate_loss_cpu(const GateLossParams& p) {
  HWY_DYNAMIC_DISPATCH(gate_loss)(p);
}

}  // namespace seer::kernels
#endif
