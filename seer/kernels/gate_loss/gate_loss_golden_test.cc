// Distillation of the published gate: loss, its gradient, and the weight's gradient behind it.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "seer/io/golden.h"
#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/gate_loss/gate_loss.h"

namespace seer::kernels {
namespace {

using Floats = std::vector<float>;

// The limit is relative to the largest gradient, as those of a loss per element are small.
void expect_gradient(const Floats& got, const Floats& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  float largest = 0;
  for (const float x : want) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 1e-5 * largest) << what << " " << i;
  }
}

class GoldenDistillation {
 public:
  explicit GoldenDistillation(const io::Golden& golden) : golden_(golden) {
    tokens_ = golden.number("a.S"), block_ = golden.number("a.B"), dim_ = golden.number("a.d");
    q_heads_ = golden.number("a.Hq"), k_heads_ = golden.number("a.Hk");
    blocks_ = (tokens_ + block_ - 1) / block_;
    cu_ = {0, tokens_};
    cu_blocks_ = {0, blocks_};
    const Floats cos = golden.floats("a/cos"), sin = golden.floats("a/sin");
    for (int r = 0; r < blocks_; ++r) {
      cos_.insert(cos_.end(), cos.begin() + r * dim_, cos.begin() + r * dim_ + dim_ / 2);
      sin_.insert(sin_.end(), sin.begin() + r * dim_, sin.begin() + r * dim_ + dim_ / 2);
    }
  }

  Floats pool(const char* name, int heads, int pools) const {
    const Floats x = golden_.floats(name);
    Floats out(blocks_ * heads * count_pools(pools) * dim_);
    GatePoolParams p{};
    p.x = {x.data(), heads * dim_, dim_};
    p.cu = cu_.data();
    p.cu_blocks = cu_blocks_.data();
    p.pooled = out.data();
    p.num_seqs = 1;
    p.num_heads = heads;
    p.head_dim = dim_;
    p.block = block_;
    p.num_blocks = blocks_;
    p.pools = pools;
    attn_gate_pool(p, {});
    return out;
  }

  // q_gate, k_gate, scores of the case.
  void forward() {
    k_pooled_ = pool("a/k", k_heads_, 7);
    const Floats q_pooled = pool("a/q", q_heads_, kPoolAvg);
    weight_ = golden_.floats("a/weight_k");
    q_gate_.resize(blocks_ * q_heads_ * dim_);
    k_gate_.resize(q_gate_.size());
    scores_.resize(q_heads_ * blocks_ * blocks_);
    GateProjectParams p{};
    p.x = q_pooled.data();
    p.cos = cos_.data();
    p.sin = sin_.data();
    p.y = q_gate_.data();
    p.num_blocks = blocks_;
    p.num_in_heads = p.num_out_heads = q_heads_;
    p.in_dim = p.out_dim = dim_;
    p.rope_half = dim_ / 2;
    attn_gate_project(p, {});
    p.x = k_pooled_.data();
    p.weight = weight_.data();
    p.y = k_gate_.data();
    p.num_in_heads = k_heads_;
    p.in_dim = 3 * dim_;
    attn_gate_project(p, {});
    attn_gate_score(score_params(), {});
  }

  GateScoreParams score_params() {
    GateScoreParams p{};
    p.q_gate = q_gate_.data();
    p.k_gate = k_gate_.data();
    p.cu_q = p.cu_k = cu_.data();
    p.cu_rows = p.cu_blocks = cu_blocks_.data();
    p.scores = scores_.data();
    p.num_seqs = 1;
    p.num_q_heads = p.num_gate_heads = q_heads_;
    p.gate_dim = dim_;
    p.num_rows = p.num_blocks = blocks_;
    p.block = block_;
    p.scale = 1 / std::sqrt(static_cast<float>(dim_));
    return p;
  }

  double loss(GateLoss kind, double skip, Floats* dscores) const {
    const Floats target = golden_.floats("a/target");
    dscores->assign(scores_.size(), NAN);
    double loss = NAN;
    GateLossParams p{};
    p.scores = scores_.data();
    p.target = target.data();
    p.cu_rows = cu_blocks_.data();
    p.num_key_blocks = &blocks_;
    p.dscores = dscores->data();
    p.loss = &loss;
    p.num_seqs = 1;
    p.num_heads = q_heads_;
    p.num_rows = p.num_blocks = blocks_;
    p.skip = skip;
    p.kind = kind;
    gate_loss(p, {});
    return loss;
  }

  Floats weight_gradient(const Floats& dscores) {
    Floats dq(q_gate_.size()), dk(k_gate_.size()), dweight(weight_.size());
    attn_gate_score_grad({score_params(), dscores.data(), dq.data(), dk.data()}, {});
    GateProjectGradParams p{};
    p.x = k_pooled_.data();
    p.cos = cos_.data();
    p.sin = sin_.data();
    p.dy = dk.data();
    p.dweight = dweight.data();
    p.num_blocks = blocks_;
    p.num_in_heads = k_heads_;
    p.num_out_heads = q_heads_;
    p.in_dim = 3 * dim_;
    p.out_dim = dim_;
    p.rope_half = dim_ / 2;
    attn_gate_project_grad(p, {});
    return dweight;
  }

 private:
  const io::Golden& golden_;
  int32_t tokens_, block_, dim_, q_heads_, k_heads_, blocks_;
  std::vector<int32_t> cu_, cu_blocks_;
  Floats cos_, sin_, k_pooled_, weight_, q_gate_, k_gate_, scores_;
};

void check(const io::Golden& golden) {
  ASSERT_EQ(golden.number("a.rows_left_out"), 2);  // floor(9 / 4)
  GoldenDistillation run(golden);
  run.forward();
  Floats dscores;
  const double kl = run.loss(GateLoss::kl, 0.25, &dscores);
  const float want = golden.floats("a/loss")[0];
  EXPECT_NEAR(kl, want, 1e-5 * want);
  expect_gradient(dscores, golden.floats("a/scores_grad"), "scores");
  expect_gradient(run.weight_gradient(dscores), golden.floats("a/weight_k_grad"), "weight_k");

  const double mse = run.loss(GateLoss::mse, 0, &dscores);
  const float want_mse = golden.floats("a/loss_mse")[0];
  EXPECT_NEAR(mse, want_mse, 1e-5 * want_mse);
  expect_gradient(dscores, golden.floats("a/scores_grad_mse"), "scores, mse");
}

TEST(GateLossGolden, Distillation) {
  for (const io::Golden& golden : io::Golden::sets("distill_loss")) {
    SCOPED_TRACE(golden.path());
    check(golden);
  }
}

}  // namespace
}  // namespace seer::kernels
