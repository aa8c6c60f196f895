// Distillation of the published gate: loss, its gradient, and the weight's gradient behind it.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "seer/io/testing/golden.h"
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
  // q [b, S, Hq, D], k [b, S, Hk, D], weight_k [Hq, 3D, D], target [b, Hq, n, n], cos [n, w].
  GoldenDistillation(const io::Golden& golden, const std::string& name)
      : golden_(golden), name_(name) {
    seqs_ = size("q", 0), q_heads_ = size("q", 2), dim_ = size("q", 3), k_heads_ = size("k", 2);
    seq_blocks_ = size("target", 2), blocks_ = seqs_ * seq_blocks_;
    block_ = golden.number(name + ".B");
    for (int b = 0; b <= seqs_; ++b) {
      cu_.push_back(b * size("q", 1));
      cu_blocks_.push_back(b * seq_blocks_);
    }
    num_key_blocks_.assign(seqs_, seq_blocks_);
    const Floats cos = get("cos"), sin = get("sin");
    const int width = size("cos", 1);
    half_ = width / 2;
    for (int r = 0; r < blocks_; ++r) {
      const int at = r % seq_blocks_ * width;
      cos_.insert(cos_.end(), cos.begin() + at, cos.begin() + at + half_);
      sin_.insert(sin_.end(), sin.begin() + at, sin.begin() + at + half_);
    }
  }

  int seq_blocks() const { return seq_blocks_; }
  Floats get(const char* tensor) const { return golden_.floats(name_ + "/" + tensor); }
  // Of all sequences, as the op has it.
  Floats rows(const char* tensor) const { return golden_.heads_first(name_ + "/" + tensor); }
  int size(const char* tensor, int axis) const {
    return static_cast<int>(golden_.shape(name_ + "/" + tensor).at(axis));
  }

  Floats pool(const char* name, int heads, int pools) const {
    const Floats x = get(name);
    Floats out(blocks_ * heads * count_pools(pools) * dim_);
    GatePoolParams p{};
    p.x = {x.data(), heads * dim_, dim_};
    p.cu = cu_.data();
    p.cu_blocks = cu_blocks_.data();
    p.pooled = out.data();
    p.num_seqs = seqs_;
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
    k_pooled_ = pool("k", k_heads_, 7);
    const Floats q_pooled = pool("q", q_heads_, kPoolAvg);
    weight_ = get("weight_k");
    q_gate_.resize(blocks_ * q_heads_ * dim_);
    k_gate_.resize(q_gate_.size());
    scores_.resize(q_heads_ * blocks_ * seq_blocks_);
    GateProjectParams p{};
    p.x = q_pooled.data();
    p.cos = cos_.data();
    p.sin = sin_.data();
    p.y = q_gate_.data();
    p.num_blocks = blocks_;
    p.num_in_heads = p.num_out_heads = q_heads_;
    p.in_dim = p.out_dim = dim_;
    p.rope_half = half_;
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
    p.num_seqs = seqs_;
    p.num_q_heads = p.num_gate_heads = q_heads_;
    p.gate_dim = dim_;
    p.num_rows = p.total_blocks = blocks_;
    p.num_blocks = seq_blocks_;
    p.block = block_;
    p.scale = 1 / std::sqrt(static_cast<float>(dim_));
    return p;
  }

  double loss(GateLoss kind, double skip, Floats* dscores) const {
    const Floats target = rows("target");
    dscores->assign(scores_.size(), NAN);
    double loss = NAN;
    GateLossParams p{};
    p.scores = scores_.data();
    p.target = target.data();
    p.cu_rows = cu_blocks_.data();
    p.num_key_blocks = num_key_blocks_.data();
    p.dscores = dscores->data();
    p.loss = &loss;
    p.num_seqs = seqs_;
    p.num_heads = q_heads_;
    p.num_rows = blocks_;
    p.num_blocks = seq_blocks_;
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
    p.rope_half = half_;
    attn_gate_project_grad(p, {});
    return dweight;
  }

 private:
  const io::Golden& golden_;
  std::string name_;
  int32_t seqs_, block_, dim_, q_heads_, k_heads_, seq_blocks_, half_;
  int32_t blocks_;  // of all sequences
  std::vector<int32_t> cu_, cu_blocks_, num_key_blocks_;
  Floats cos_, sin_, k_pooled_, weight_, q_gate_, k_gate_, scores_;
};

void check(const io::Golden& golden, const std::string& name) {
  GoldenDistillation run(golden, name);
  run.forward();
  ASSERT_EQ(golden.number(name + ".rows_left_out"), run.seq_blocks() / 4);
  Floats dscores;
  const double kl = run.loss(GateLoss::kl, 0.25, &dscores);
  const float want = run.get("loss")[0];
  EXPECT_NEAR(kl, want, 1e-5 * want);
  expect_gradient(dscores, run.rows("scores_grad"), "scores");
  expect_gradient(run.weight_gradient(dscores), run.get("weight_k_grad"), "weight_k");

  const double mse = run.loss(GateLoss::mse, 0, &dscores);
  const float want_mse = run.get("loss_mse")[0];
  EXPECT_NEAR(mse, want_mse, 1e-5 * want_mse);
  expect_gradient(dscores, run.rows("scores_grad_mse"), "scores, mse");
}

TEST(GateLossGolden, Distillation) {
  for (const io::Golden& golden : io::Golden::sets("distill_loss")) {
    for (const std::string& name : golden.cases("scores_grad")) {
      SCOPED_TRACE(golden.path() + " " + name);
      check(golden, name);
    }
  }
}

}  // namespace
}  // namespace seer::kernels
