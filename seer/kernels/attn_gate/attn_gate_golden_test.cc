// The gate of the published code: pooling, projection, RoPE and scores of every golden case.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "seer/io/testing/golden.h"
#include "seer/kernels/attn_gate/attn_gate.h"

namespace seer::kernels {
namespace {

using Floats = std::vector<float>;

void expect_near(const Floats& got, const Floats& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 1e-5 * (1 + std::abs(want[i]))) << what << " " << i;
  }
}

// Bits of one side of a type such as "Qavg_Kmaxminavg".
int pools_of(const std::string& type, char side) {
  const size_t begin = type.find(side);
  const std::string text = type.substr(begin, side == 'Q' ? type.find('_') : type.npos);
  const auto has = [&](const char* word) { return text.find(word) != text.npos; };
  return has("max") * kPoolMax + has("min") * kPoolMin + has("avg") * kPoolAvg;
}

// One case of gate_single or gate_double, all its sequences packed.
class GoldenGate {
 public:
  GoldenGate(const io::Golden& golden, const std::string& name) : golden_(golden), name_(name) {
    seqs_ = size("q", 0), len_ = size("q", 1), q_heads_ = size("q", 2), head_dim_ = size("q", 3);
    k_heads_ = size("k", 2), dim_ = size("weight_k", 2), blocks_ = size("q_pooled", 1);
    block_ = golden.number(name + ".B");
    for (int b = 0; b <= seqs_; ++b) {
      cu_.push_back(b * len_);
      cu_blocks_.push_back(b * blocks_);
    }
    const Floats cos = get("cos"), sin = get("sin");
    const int width = size("cos", 1);
    half_ = width / 2;
    for (int r = 0; r < seqs_ * blocks_; ++r) {
      for (int i = 0; i < half_; ++i) {
        cos_.push_back(cos[r % blocks_ * width + i]);
        sin_.push_back(sin[r % blocks_ * width + i]);
      }
    }
  }

  Floats get(const std::string& tensor) const { return golden_.floats(name_ + "/" + tensor); }
  bool has(const std::string& tensor) const { return golden_.contains(name_ + "/" + tensor); }
  int size(const std::string& tensor, int axis) const {
    return static_cast<int>(golden_.shape(name_ + "/" + tensor).at(axis));
  }
  int q_heads() const { return q_heads_; }

  Floats pool(const Floats& x, int heads, int pools) const {
    Floats out(seqs_ * blocks_ * heads * count_pools(pools) * head_dim_);
    GatePoolParams p{};
    p.x = {x.data(), heads * head_dim_, head_dim_};
    p.cu = cu_.data();
    p.cu_blocks = cu_blocks_.data();
    p.pooled = out.data();
    p.num_seqs = seqs_;
    p.num_heads = heads;
    p.head_dim = head_dim_;
    p.block = block_;
    p.num_blocks = seqs_ * blocks_;
    p.pools = pools;
    attn_gate_pool(p, {});
    return out;
  }

  Floats project(const Floats& x, int in_heads, int in_dim, const Floats& weight) const {
    const bool single = weight.empty();
    const int out_heads = single ? in_heads : static_cast<int>(weight.size()) / (in_dim * dim_);
    Floats y(seqs_ * blocks_ * out_heads * dim_);
    GateProjectParams p{};
    p.x = x.data();
    p.weight = single ? nullptr : weight.data();
    p.cos = cos_.data();
    p.sin = sin_.data();
    p.y = y.data();
    p.num_blocks = seqs_ * blocks_;
    p.num_in_heads = in_heads;
    p.num_out_heads = out_heads;
    p.in_dim = in_dim;
    p.out_dim = dim_;
    p.rope_half = half_;
    attn_gate_project(p, {});
    return y;
  }

  void check_scores(const Floats& q_gate, const Floats& k_gate) const {
    Floats scores(q_heads_ * seqs_ * blocks_ * blocks_);
    GateScoreParams p{};
    p.q_gate = q_gate.data();
    p.k_gate = k_gate.data();
    p.cu_q = p.cu_k = cu_.data();
    p.cu_rows = p.cu_blocks = cu_blocks_.data();
    p.scores = scores.data();
    p.num_seqs = seqs_;
    p.num_q_heads = q_heads_;
    p.num_gate_heads = size("k_gate", 2);
    p.gate_dim = dim_;
    p.num_rows = seqs_ * blocks_;
    p.num_blocks = blocks_;
    p.block = block_;
    p.scale = 1 / std::sqrt(static_cast<float>(dim_));
    attn_gate_score(p, {});
    const Floats want = golden_.heads_first(name_ + "/scores");
    ASSERT_EQ(scores.size(), want.size());
    for (size_t at = 0; at < want.size(); ++at) {
      const int n = static_cast<int>(at) % blocks_, m = static_cast<int>(at) / blocks_ % blocks_;
      if (n > m) {
        ASSERT_EQ(scores[at], -INFINITY);
      } else {
        ASSERT_NEAR(scores[at], want[at], 1e-5 * (1 + std::abs(want[at])));
      }
    }
  }

  void check() const {
    // The one gate with a single weight that was published does not name its poolings.
    const bool is_named = golden_.has_text(name_ + ".type");
    const std::string type = is_named ? golden_.text(name_ + ".type") : "Qavg_Kmaxminavg";
    const int q_pools = pools_of(type, 'Q'), k_pools = pools_of(type, 'K');
    const Floats q_pooled = pool(get("q"), q_heads_, q_pools);
    const Floats k_pooled = pool(get("k"), k_heads_, k_pools);
    expect_near(q_pooled, get("q_pooled"), "q_pooled");
    expect_near(k_pooled, get("k_pooled"), "k_pooled");
    const Floats none;
    const Floats q_gate = project(q_pooled, q_heads_, count_pools(q_pools) * head_dim_,
                                  has("weight_q") ? get("weight_q") : none);
    const Floats k_gate =
        project(k_pooled, k_heads_, count_pools(k_pools) * head_dim_, get("weight_k"));
    expect_near(q_gate, get("q_gate"), "q_gate");
    expect_near(k_gate, get("k_gate"), "k_gate");
    check_scores(q_gate, k_gate);
  }

 private:
  const io::Golden& golden_;
  std::string name_;
  int seqs_, len_, block_, head_dim_, q_heads_, k_heads_, dim_, blocks_, half_;
  std::vector<int32_t> cu_, cu_blocks_;
  Floats cos_, sin_;
};

void check_all(const char* file) {
  for (const io::Golden& golden : io::Golden::sets(file)) {
    for (const std::string& name : golden.cases("q")) {
      SCOPED_TRACE(golden.path() + " " + name);
      GoldenGate(golden, name).check();
    }
  }
}

TEST(AttnGateGolden, Single) {
  check_all("gate_single");
}

TEST(AttnGateGolden, Double) {
  check_all("gate_double");
}

}  // namespace
}  // namespace seer::kernels
