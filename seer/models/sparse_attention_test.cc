#include "seer/models/sparse_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/models/generate.h"
#include "seer/models/methods/row_scores.h"
#include "seer/models/testing/test_model.h"
#include "seer/models/testing/watched_attention.h"

namespace seer::models {
namespace {

constexpr int kBlock = 16;

Gates strong_gates(const Decoder& model) {
  io::GateConfig config;
  config.block_size = kBlock;
  Gates gates = Gates::create(config, model, 11);
  for (GateWeights& w : gates.layers()) w.k = w.k.mul(20);  // scores clear of one another
  return gates;
}

SparseSettings settings_of(const std::string& method, double strength,
                           const std::string& rule = "nz_ratio") {
  SparseSettings settings;
  settings.method = method;
  settings.block = kBlock;
  settings.selection.rule = rule;
  settings.selection.strength = {strength};
  settings.seed = 3;
  return settings;
}

struct SparseInputs {
  Sequences sequences;
  at::Tensor q_plain, k_plain, q, k, v;
  int64_t window = 0;
  AttentionInput get() const {
    return {0, sequences, q_plain, k_plain, q, k, v, 1 / std::sqrt(16.0), window};
  }
};
SparseInputs sparse_inputs(const std::vector<int64_t>& lens) {
  const Sequences sequences{lens, lens, 0};
  const int64_t t = sequences.num_tokens();
  return {sequences,
          test::normal({t, 4, 16}, 1),
          test::normal({t, 2, 16}, 2),
          test::normal({t, 4, 16}, 3).mul(2),
          test::normal({t, 2, 16}, 4),
          test::normal({t, 2, 16}, 5)};
}

class EveryMethod : public testing::TestWithParam<MethodInfo> {
 protected:
  std::string name() const { return GetParam().name; }
};
INSTANTIATE_TEST_SUITE_P(Methods, EveryMethod, testing::ValuesIn(methods()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(EveryMethod, DensityOneEqualsDense) {
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(model);
  test::Watched sparse(model, &gates, settings_of(name(), 1));
  for (const std::vector<int64_t>& lens :
       {std::vector<int64_t>{1}, {16}, {100}, {64, 64}, {33, 5, 80}}) {
    const SparseInputs inputs = sparse_inputs(lens);
    EXPECT_LE(test::largest_difference(sparse(inputs.get()), dense_attention(inputs.get())), 1e-5);
  }
  EXPECT_EQ(sparse.statistics().density(), 1);
}

TEST_P(EveryMethod, PromptInChunksEqualsWhole) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(model);
  test::Watched sparse(model, &gates, settings_of(name(), 0.4));
  const auto ids = test::some_ids(150);
  const auto run = [&](int64_t chunk) {
    sparse.meter.reset();
    SequenceCache cache(2);
    std::vector<at::Tensor> parts;
    prefill(model, ids, std::ref(sparse), chunk, cache,
            [&](const at::Tensor& hidden) { parts.push_back(hidden); });
    return at::cat(parts, 0);
  };
  const at::Tensor whole = run(0);
  const double density = sparse.statistics().density();
  EXPECT_GT(density, 0.3);
  EXPECT_LT(density, 0.6);
  if (GetParam().whole) {
    EXPECT_THROW(run(48), Error);
    return;
  }
  for (const int64_t chunk : {16, 48, 128}) {
    EXPECT_LE(test::largest_difference(run(chunk), whole), 2e-4) << chunk;
    EXPECT_DOUBLE_EQ(sparse.statistics().density(), density) << chunk;
  }
  EXPECT_THROW(run(40), Error) << "not a multiple of the block size";
}

// With `even` the number of blocks a row follows from the rule and the sizes alone.
TEST_P(EveryMethod, EvenRowsHaveAsManyBlocksUnderEveryMethod) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(model);
  struct Case {
    double strength;
    int64_t sink, local, kept;
    const char* rule = "nz_ratio";
  };
  for (const Case& c : {Case{0.6, 0, 0, 3},
                        {0.3, 0, 0, 2},
                        {0.6, 1, 1, 4},
                        {1, 0, 0, 10},
                        {3.5 * kBlock, 0, 0, 3, "row_budget"}}) {
    SparseSettings settings = settings_of(name(), c.strength, c.rule);
    settings.even = true;
    settings.selection.sink_blocks = c.sink;
    settings.selection.local_blocks = c.local;
    EXPECT_EQ(even_blocks(settings.selection, kBlock, 10), c.kept);
    test::Watched sparse(model, &gates, settings);
    for (const int64_t chunk : {0, 48}) {
      if (chunk > 0 && GetParam().whole) continue;
      sparse.meter.reset();
      SequenceCache cache(2);
      prefill(model, test::some_ids(10 * kBlock - 5), std::ref(sparse), chunk, cache,
              [](const at::Tensor&) {});
      double want = 0;
      for (int64_t row = 1; row <= 10; ++row) want += static_cast<double>(std::min(row, c.kept));
      EXPECT_EQ(sparse.statistics().kept_blocks, 2 * 4 * want) << c.rule << " " << c.strength;
    }
  }
}

TEST_P(EveryMethod, SparseDiffersFromDense) {
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(model);
  test::Watched sparse(model, &gates, settings_of(name(), 0.3));
  const SparseInputs inputs = sparse_inputs({200});
  EXPECT_GT(test::largest_difference(sparse(inputs.get()), dense_attention(inputs.get())), 0.01);
}

TEST(SparseAttention, OracleIsCloserToDenseThanRandom) {
  const Decoder model = test::small_model();
  SparseInputs inputs = sparse_inputs({400});
  inputs.q = inputs.q.mul(3);  // attention that is on few keys
  const auto error = [&](const char* method) {
    test::Watched sparse(model, nullptr, settings_of(method, 0.3));
    return sparse(inputs.get()).sub(dense_attention(inputs.get())).pow(2).mean().item().toDouble();
  };
  EXPECT_LT(error("oracle"), 0.6 * error("random"));
}

TEST(SparseAttention, BudgetDecidesDensity) {
  const Decoder model = test::small_model();
  test::Watched sparse(model, nullptr, settings_of("streaming", 3 * kBlock, "row_budget"));
  const SparseInputs inputs = sparse_inputs({10 * kBlock});
  sparse(inputs.get());
  EXPECT_EQ(sparse.statistics().causal_blocks, 4 * 55);
  EXPECT_EQ(sparse.statistics().kept_blocks, 4 * (1 + 2 + 8 * 3));
  EXPECT_GT(sparse.statistics().attention_seconds, 0);
}

TEST(SparseAttention, StreamingSeesTheFirstAndTheRecentBlocks) {
  const Decoder model = test::small_model();
  test::Watched sparse(model, nullptr, settings_of("streaming", 3 * kBlock, "row_budget"));
  const SparseInputs inputs = sparse_inputs({10 * kBlock});
  const at::Tensor o = sparse(inputs.get());
  // Block row 7 sees block 0 and, with itself, 6 and 7.
  const auto keys = [&](const at::Tensor& x) {
    return at::cat({x.narrow(0, 0, kBlock), x.narrow(0, 6 * kBlock, 2 * kBlock)}, 0);
  };
  const at::Tensor wanted =
      test::plain_attention(inputs.q.narrow(0, 7 * kBlock, kBlock), keys(inputs.k), keys(inputs.v),
                            inputs.get().scale, 0);
  EXPECT_LE(test::largest_difference(o.narrow(0, 7 * kBlock, kBlock), wanted), 1e-5);
}

TEST(SparseAttention, WindowedLayersStayDenseAndAreNotCounted) {
  const Decoder model = test::small_model();
  test::Watched sparse(model, nullptr, settings_of("random", 0.3));
  SparseInputs inputs = sparse_inputs({100});
  inputs.window = 50;
  EXPECT_TRUE(sparse(inputs.get()).equal(dense_attention(inputs.get())));
  EXPECT_EQ(sparse.statistics().causal_blocks, 0);
  EXPECT_GT(sparse.statistics().attention_seconds, 0);
  inputs.window = 100;
  sparse(inputs.get());
  EXPECT_GT(sparse.statistics().causal_blocks, 0);
}

TEST(SparseAttention, GradientsThroughFullListsAreThoseOfDenseAttention) {
  const Decoder model = test::small_model();
  test::Watched sparse(model, nullptr, settings_of("random", 1));
  SparseInputs inputs = sparse_inputs({100});
  const auto gradient = [&](const auto& attend) {
    inputs.q = inputs.q.detach().requires_grad_(true);
    attend(inputs.get()).square().sum().backward();
    return inputs.q.grad();
  };
  const at::Tensor want = gradient([](const AttentionInput& x) { return dense_attention(x); });
  const at::Tensor got = gradient([&](const AttentionInput& x) { return sparse(x); });
  EXPECT_GT(want.abs().max().item().toDouble(), 0);
  EXPECT_LT(got.sub(want).abs().max().item().toDouble(), 1e-4);
}

TEST(SparseAttention, WrongSettings) {
  const Decoder model = test::small_model();
  EXPECT_THROW(SparseAttention(model, nullptr, settings_of("seer", 0.5)), Error);
  EXPECT_THROW(SparseAttention(model, nullptr, settings_of("random", 0.5, "threshold")),
               UsageError);
  EXPECT_THROW(SparseAttention(model, nullptr, settings_of("streaming", 0.5, "top_p")), UsageError);
  const Gates gates = strong_gates(model);
  SparseSettings other = settings_of("seer", 0.5);
  other.block = 32;
  EXPECT_THROW(SparseAttention(model, &gates, other), Error);
}

TEST(Methods, RulesThatNeedLogits) {
  for (const MethodInfo& method : methods()) {
    EXPECT_NO_THROW(check_rule(method.name, "row_budget"));
    for (const char* rule : {"threshold", "top_p", "head_budget"}) {
      if (method.logits || method.own_rule == rule) {
        EXPECT_NO_THROW(check_rule(method.name, rule));
      } else {
        EXPECT_THROW(check_rule(method.name, rule), UsageError) << method.name;
      }
    }
  }
}

TEST(Methods, Names) {
  for (const MethodInfo& method : methods()) EXPECT_EQ(&method_named(method.name), &method);
  try {
    method_named("magic");
    FAIL() << "no error";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("magic"), testing::HasSubstr("oracle")));
  }
}

// Scores of a method for 3 heads.
at::Tensor scores_of(const std::string& method, const Sequences& sequences, int layer = 0,
                     uint64_t seed = 9) {
  const Decoder model = test::small_model();
  SparseSettings settings = settings_of(method, 0.5);
  settings.seed = seed;
  const at::Tensor q = at::zeros({sequences.num_tokens(), 3, 16});
  const at::Tensor k = at::zeros({sequences.longest(), 1, 16});
  return SparseAttention(model, nullptr, settings)
      .scores({layer, sequences, {}, {}, q, k, {}, 1, 0});
}

TEST(Methods, RandomIsUniformAndIndependentOfChunks) {
  const Sequences whole{{800}, {800}, 0}, chunk{{320}, {800}, 800};
  const at::Tensor all = scores_of("random", whole, 5);
  EXPECT_TRUE(scores_of("random", chunk, 5).equal(all.slice(1, 30)));
  const at::Tensor visible = all.masked_select(all.ge(0));
  EXPECT_EQ(visible.numel(), 3 * num_visible_blocks(whole, kBlock));
  EXPECT_EQ(num_visible_blocks(whole, kBlock), 50 * 51 / 2);
  EXPECT_NEAR(visible.mean().item().toDouble(), 0.5, 0.02);
  EXPECT_NEAR(visible.var().item().toDouble(), 1.0 / 12, 0.005);
  EXPECT_FALSE(all.equal(scores_of("random", whole, 6)));
  EXPECT_FALSE(all.equal(scores_of("random", whole, 5, 10)));
}

TEST(Methods, ForcedFirstRaisesWhatIsForcedAndVisible) {
  const Sequences chunk{{32}, {80}, 96};  // rows 3 and 4 of six
  torch_ops::Selection selection;
  selection.sink_blocks = 1;
  selection.local_blocks = 1;
  const at::Tensor scores = scores_of("streaming", chunk);
  const at::Tensor raised = torch_ops::forced_first(scores, selection).gt(1e29);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t block = 0; block < 5; ++block) {
      const int64_t own = 3 + row;
      const bool wanted = block == 0 || block == own || block == own - 1;
      EXPECT_EQ(raised[1][row][block].item().toBool(), wanted) << row << " " << block;
    }
  }
  EXPECT_TRUE(scores.lt(1e29).all().item().toBool()) << "the scores themselves are left alone";
}

}  // namespace
}  // namespace seer::models
