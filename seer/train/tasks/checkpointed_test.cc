#include "seer/train/tasks/checkpointed.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "seer/models/testing/test_model.h"
#include "seer/train/tasks/cross_entropy.h"
#include "seer/train/tasks/gate_training.h"
#include "seer/train/tasks/language_model.h"

namespace seer::train {
namespace {

constexpr int kBlock = 16;

// A model whose weights are leaves, and gates of it.
struct Trained {
  explicit Trained(at::ScalarType dtype = at::kFloat)
      : base(models::test::small_model()),
        model(base.config(), base.weights(), dtype, at::kCPU),
        gates(models::Gates::create(gate_config(), model.decoder(), 1)) {
    gates.make_trainable();
  }
  static io::GateConfig gate_config() {
    io::GateConfig config;
    config.block_size = kBlock;
    config.lookup_rank = 16;
    config.lookup_heads = {{}, {0, 3}};
    return config;
  }
  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> all;
    for (const auto& [name, weight] : model.weights()) all.push_back(weight.grad());
    return all;
  }

  models::Decoder base;
  LanguageModel model;
  models::Gates gates;
};

models::SparseSettings sparse_at(double density) {
  models::SparseSettings sparse;
  sparse.block = kBlock;
  sparse.selection.strength = {density};
  return sparse;
}

TokenBatch test_batch(int64_t end = -1) {
  const auto ids = models::test::some_ids(2 * 151);
  return batch_of_windows(at::tensor(std::vector<int64_t>(ids.begin(), ids.end())).view({2, 151}),
                          at::kCPU, end);
}

LayerRuns both(const models::Attention& attention) {
  return {attention, attention};
}

at::Tensor checkpointed(Trained& trained, const TokenBatch& batch, const LayerRuns& runs) {
  return checkpointed_backward(trained.model.decoder(), batch, 1, runs, {});
}

void expect_same(const Trained& a, const Trained& b, double bound) {
  const auto x = a.gradients(), y = b.gradients();
  for (size_t i = 0; i < x.size(); ++i) {
    const double size = y[i].abs().max().item<double>();
    EXPECT_GT(size, 0) << a.model.weights()[i].first;
    EXPECT_LE(models::test::largest_difference(x[i], y[i]), bound * size)
        << a.model.weights()[i].first;
  }
}

// The gradient of the plain graph, which keeps everything.
at::Tensor plain(Trained& trained, const TokenBatch& batch, const models::Attention& attention) {
  const models::Decoder& model = trained.model.decoder();
  const at::Tensor loss = chunked_cross_entropy(model.hidden(batch.ids, batch.sequences, attention),
                                                model.weights().head, batch.targets);
  loss.backward();
  return loss.detach();
}

TEST(Checkpointed, DocumentsOfAWindowAreSequences) {
  const at::Tensor windows = at::tensor({1, 2, 9, 3, 4, 5, 6, 9, 9, 7}, at::kLong).view({2, 5});
  const auto whole = batch_of_windows(windows, at::kCPU),
             split = batch_of_windows(windows, at::kCPU, 9);
  EXPECT_EQ(whole.sequences.q_lens, (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(split.sequences.q_lens, (std::vector<int64_t>{3, 1, 3, 1}));
  EXPECT_EQ(split.sequences.k_lens, split.sequences.q_lens);
  EXPECT_TRUE(at::equal(split.ids, at::tensor({1, 2, 9, 3, 5, 6, 9, 9}, at::kLong)));
  EXPECT_TRUE(at::equal(split.targets, at::tensor({2, 9, 3, 4, 6, 9, 9, 7}, at::kLong)));
  EXPECT_TRUE(at::equal(split.ids, whole.ids));
}

TEST(Checkpointed, GradientsAreThoseOfThePlainGraph) {
  for (const int64_t end : {-1, 7}) {
    Trained a, b;
    const TokenBatch batch = test_batch(end);
    EXPECT_EQ(batch.sequences.q_lens.size() > 2, end >= 0);
    const at::Tensor loss = checkpointed(a, batch, both(models::dense_attention));
    EXPECT_TRUE(at::equal(loss, plain(b, batch, models::dense_attention)));
    expect_same(a, b, 0);
  }
}

TEST(Checkpointed, TheLastLayerIsRunOnceAndTheOthersTwice) {
  Trained trained;
  std::vector<int> first, again;
  const auto noting = [](std::vector<int>& layers) {
    return [&layers](const models::AttentionInput& input) {
      layers.push_back(input.layer);
      return models::dense_attention(input);
    };
  };
  std::vector<int64_t> done;
  PassWatch watch;
  watch.passed = [&](int64_t runs, int64_t all) {
    done.push_back(runs);
    EXPECT_EQ(all, 2 * trained.model.config().num_layers - 1);
  };
  checkpointed_backward(trained.model.decoder(), test_batch(), 1, {noting(first), noting(again)},
                        watch);
  const int layers = trained.model.config().num_layers;
  EXPECT_EQ(first.size(), static_cast<size_t>(layers - 1));
  EXPECT_EQ(again.size(), static_cast<size_t>(layers));
  EXPECT_EQ(again.front(), layers - 1);
  EXPECT_EQ(done.back(), 2 * layers - 1);
}

TEST(Checkpointed, SparseGradientsAreThoseOfThePlainGraph) {
  Trained a, b;
  const TokenBatch batch = test_batch();
  GateTraining training(a.model.decoder(), a.gates, sparse_at(0.4), {});
  checkpointed(a, batch, training.runs(batch.sequences, 1, /*trains=*/true));
  models::SparseAttention sparse(b.model.decoder(), &b.gates, sparse_at(0.4));
  plain(b, batch, [&](const models::AttentionInput& input) { return sparse(input); });
  expect_same(a, b, 0);
}

TEST(Checkpointed, EverythingKeptIsDense) {
  Trained a, b;
  const TokenBatch batch = test_batch();
  GateTraining training(a.model.decoder(), a.gates, sparse_at(1), {});
  const at::Tensor sparse =
                       checkpointed(a, batch, training.runs(batch.sequences, 1, /*trains=*/false)),
                   dense = checkpointed(b, batch, both(models::dense_attention));
  EXPECT_NEAR(sparse.item<double>(), dense.item<double>(), 1e-5);
  expect_same(a, b, 1e-4);
  EXPECT_FALSE(a.gates.layers()[0].k.grad().defined());
}

TEST(Checkpointed, TheGateLossLeavesTheModelAlone) {
  Trained with, without;
  const TokenBatch batch = test_batch();
  GateTraining training(with.model.decoder(), with.gates, sparse_at(0.4), {"kl", 0.25, 1000}),
      none(without.model.decoder(), without.gates, sparse_at(0.4), {});
  checkpointed(with, batch, training.runs(batch.sequences, 0.5, /*trains=*/true));
  checkpointed(without, batch, none.runs(batch.sequences, 0.5, /*trains=*/false));
  expect_same(with, without, 0);
  EXPECT_GT(training.loss().item<double>(), 0);
  EXPECT_EQ(none.loss().item<double>(), 0);
  const std::vector<Parameter> gates = gate_parameters(with.gates);
  std::vector<std::string> names;
  for (const Parameter& gate : gates) {
    names.push_back(gate.name);
    EXPECT_GT(gate.leaf.grad().abs().max().item<double>(), 0) << gate.name;
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"model.layers.0.self_attn.attn_gate.mask_linear_k.weight",
                                      "model.layers.1.self_attn.attn_gate.mask_linear_k.weight",
                                      "model.layers.1.self_attn.attn_gate.lookup_q.weight",
                                      "model.layers.1.self_attn.attn_gate.lookup_k.weight"}));
  EXPECT_EQ(gate_leaves(with.gates, 1).size(), 3u);
}

// As distillation has it, layer by layer.
TEST(Checkpointed, TheGateLossIsThatOfTheTrueMap) {
  Trained trained;
  const TokenBatch batch = test_batch();
  GateTraining training(trained.model.decoder(), trained.gates, sparse_at(1), {"kl", 0.25, 10});
  checkpointed(trained, batch, training.runs(batch.sequences, 0.5, /*trains=*/true));
  const auto ragged =
      torch_ops::make_ragged(batch.sequences.q_lens, batch.sequences.k_lens, kBlock, at::kCPU);
  double sum = 0;
  const at::NoGradGuard no_grad;
  const auto watched = [&](const models::AttentionInput& input) {
    const auto [o, lse, target] =
        torch_ops::pooled_attn(input.q, input.k, input.v, ragged, input.scale, true, false, true);
    sum += torch_ops::gate_loss(trained.gates.scores(input, ragged), target, ragged, 0.25, "kl")
               .item<double>();
    return o;
  };
  trained.model.decoder().hidden(batch.ids, batch.sequences, watched);
  EXPECT_NEAR(training.loss().item<double>(), 10 * 0.5 * sum, 1e-5 * 10 * sum);
}

TEST(Checkpointed, EveryWeightIsCompleteOnceAndNarrowOnesFollow) {
  Trained whole(at::kBFloat16), narrow(at::kBFloat16);
  const TokenBatch batch = test_batch();
  std::vector<at::Tensor> order;
  const auto complete = [&](int part) {
    for (const at::Tensor& weight : narrow.model.part(part)) order.push_back(weight);
  };
  checkpointed_backward(narrow.model.decoder(), batch, 1, both(models::dense_attention),
                        {complete, nullptr});
  plain(whole, batch, models::dense_attention);
  EXPECT_EQ(order.size(), narrow.model.weights().size());
  for (const auto& [name, weight] : narrow.model.weights()) {
    EXPECT_EQ(std::count_if(order.begin(), order.end(),
                            [&](const at::Tensor& x) { return x.is_same(weight); }),
              1)
        << name;
  }
  expect_same(narrow, whole, 0.01);
}

// The loop leaves such a step out.
TEST(Checkpointed, NanShowsAndEndsNothing) {
  Trained trained;
  const TokenBatch batch = test_batch(/*end=*/7);
  {
    const at::NoGradGuard no_grad;
    trained.model.decoder().weights().embedding[5].fill_(std::numeric_limits<float>::quiet_NaN());
  }
  ASSERT_GT(batch.ids.eq(5).sum().item<int64_t>(), 0);
  GateTraining training(trained.model.decoder(), trained.gates, sparse_at(0.4), {});
  const at::Tensor loss =
      checkpointed(trained, batch, training.runs(batch.sequences, 1, /*trains=*/true));
  EXPECT_TRUE(std::isnan(loss.item<double>()));
  EXPECT_TRUE(std::isnan(training.loss().item<double>()));
}

}  // namespace
}  // namespace seer::train
