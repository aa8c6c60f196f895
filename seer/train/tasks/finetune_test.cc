#include "seer/train/tasks/finetune.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/models/loader.h"
#include "seer/models/testing/test_model.h"
#include "seer/train/tasks/cross_entropy.h"
#include "seer/train/tasks/gate_training.h"
#include "seer/train/tasks/language_model.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

nlohmann::json test_config(int64_t context = 64) {
  auto config = models::test::small_config();
  config["vocab_size"] = 8192;
  config["max_position_embeddings"] = context;
  return config;
}

// ----------------------------------------------------------------------------- The pass

constexpr int kBlock = 16;

// A model whose weights are leaves, and gates of it.
struct Trained {
  explicit Trained(at::ScalarType dtype = at::kFloat)
      : base(models::test::small_model()),
        model(base.config(), base.weights(), dtype, at::kCPU),
        gates(models::Gates::create(gate_config(), model.decoder(), 1)) {
    for (const auto& [name, weight] : model.parameters()) {
      weight.mutable_grad() = at::zeros_like(weight.detach());
    }
    for (auto& layer : gates.layers()) layer.k.requires_grad_();
  }
  static io::GateConfig gate_config() {
    io::GateConfig config;
    config.block_size = kBlock;
    return config;
  }
  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> all;
    for (const auto& [name, weight] : model.parameters()) all.push_back(weight.grad());
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
  return trained.model.checkpointed(batch, 1, runs, nullptr, nullptr, nullptr);
}

void expect_same(const Trained& a, const Trained& b, double bound) {
  const auto x = a.gradients(), y = b.gradients();
  for (size_t i = 0; i < x.size(); ++i) {
    const double size = y[i].abs().max().item<double>();
    EXPECT_GT(size, 0) << a.model.parameters()[i].first;
    EXPECT_LE(models::test::largest_difference(x[i], y[i]), bound * size)
        << a.model.parameters()[i].first;
  }
}

// The gradient of the plain graph, which keeps everything.
at::Tensor plain(Trained& trained, const TokenBatch& batch, const models::Attention& attention) {
  const models::Decoder& model = trained.model.decoder();
  const at::Tensor loss = chunked_cross_entropy(model.hidden(batch.ids, batch.sequences, attention),
                                                model.weights().head, batch.targets);
  trained.model.backward(loss);
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
  for (const auto& layer : with.gates.layers()) {
    EXPECT_GT(layer.k.grad().abs().max().item<double>(), 0);
  }
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

TEST(Checkpointed, EveryMasterIsCompleteOnceAndNarrowCopiesFollow) {
  Trained whole(at::kBFloat16), narrow(at::kBFloat16);
  const TokenBatch batch = test_batch();
  std::vector<at::Tensor> order;
  narrow.model.checkpointed(
      batch, 1, both(models::dense_attention),
      [&](const at::Tensor& master) { order.push_back(master); }, nullptr, nullptr);
  plain(whole, batch, models::dense_attention);
  EXPECT_EQ(order.size(), narrow.model.parameters().size());
  for (const auto& [name, weight] : narrow.model.parameters()) {
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

// ----------------------------------------------------------------------------- The task

FinetuneSettings finetune_settings(const std::filesystem::path& folder, const std::string& name) {
  FinetuneSettings settings;
  settings.loop.out = folder / name;
  settings.loop.steps = 30;
  settings.loop.save_every = 4;
  settings.loop.show_progress = false;
  settings.data.train = {folder / "train.jsonl"};
  settings.data.valid = {folder / "valid.jsonl"};
  settings.data.cache = folder / "cache";
  settings.model = folder / "model";
  settings.yarn_factor = 4;
  settings.density = 0.4;
  settings.gate.block_size = kBlock;
  settings.sequences = 3;
  settings.length = 200;  // the last block is not full
  settings.micro_batch = 2;
  settings.valid_sequences = 2;
  settings.learning_rate = 1e-2;
  settings.gate_learning_rate = 2e-2;
  settings.schedule.warmup = 3;
  return settings;
}

class Finetune : public RunTest {
 protected:
  void SetUp() override {
    RunTest::SetUp();
    at::set_num_threads(1);  // too little work for more
    write_documents(folder / "train.jsonl", 20, 60, 1);
    write_documents(folder / "valid.jsonl", 3, 60, 900);
    save_model("model", 0.3);
  }
  void save_model(const char* name, double scale) const {
    auto model = models::test::small_model(test_config());
    for (auto& [weight_name, weight] : models::named_weights(model.weights())) weight->mul_(scale);
    models::save_model(folder / name, test_config(), model.weights());
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
      write_file_atomic(folder / name / file, read_file(reference_tokenizer() / file));
    }
  }
  static std::string error_of(const FinetuneSettings& wrong) {
    try {
      finetune(wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(Finetune, LossesFallAndTheModelLoadsWithItsGates) {
  for (const char* attention : {"dense", "sparse"}) {
    FinetuneSettings run = finetune_settings(folder, attention);
    run.attention = attention;
    const RunResult result = finetune(run);
    const auto lines = metrics_of(folder / attention);
    const double first = lines[0]["loss"];
    EXPECT_LT(result.loss, first - 1) << attention;
    EXPECT_LT(result.valid.at("valid"), first - 1) << attention;
    const auto model = models::Decoder::load(folder / attention, at::kBFloat16, at::kCPU);
    EXPECT_EQ(model.config().rope.type, "yarn");
    EXPECT_EQ(model.config().max_position, 256);
    if (!run.is_sparse()) continue;
    EXPECT_EQ(models::Gates::load(folder / attention / "gates", model).config().block_size, kBlock);
  }
}

TEST_F(Finetune, MicroBatchesChangeOnlyTheRounding) {
  FinetuneSettings run = finetune_settings(folder, "a");
  run.loop.steps = 1;
  run.documents = "packed";
  finetune(run);
  run.loop.out = folder / "b";
  run.micro_batch = 1;
  finetune(run);
  const auto a = metrics_of(folder / "a")[0], b = metrics_of(folder / "b")[0];
  for (const char* name : {"loss", "grad_norm"}) {
    EXPECT_NEAR(a[name].get<double>(), b[name].get<double>(), 1e-3) << name;
  }
}

// Of a model that hardly moves.
TEST_F(Finetune, TheGateLossFalls) {
  save_model("sharp", 1);
  for (const char* loss : {"kl", "mse"}) {
    FinetuneSettings run = finetune_settings(folder, loss);
    run.model = folder / "sharp";
    run.gate_loss = loss;
    run.learning_rate = 1e-9;
    run.loop.clip = 0;
    finetune(run);
    const auto lines = metrics_of(folder / loss);
    EXPECT_LT(lines[29]["gate_loss"], 0.9 * lines[0]["gate_loss"].get<double>()) << loss;
  }
}

TEST_F(Finetune, Bf16WithMasterWeightsFollowsF32) {
  FinetuneSettings wide = finetune_settings(folder, "a"), narrow = finetune_settings(folder, "b");
  wide.loop.steps = narrow.loop.steps = 6;
  narrow.dtype = at::kBFloat16;
  EXPECT_NEAR(finetune(wide).valid.at("valid"), finetune(narrow).valid.at("valid"), 0.1);
  const auto a = metrics_of(folder / "a")[0], b = metrics_of(folder / "b")[0];
  EXPECT_NE(a, b) << "bf16 was not used";
  EXPECT_NEAR(b["grad_norm"].get<double>(), a["grad_norm"].get<double>(),
              0.05 * a["grad_norm"].get<double>());
}

TEST_F(Finetune, GatesAreTrainedInEveryNthStep) {
  FinetuneSettings run = finetune_settings(folder, "a");
  run.loop.steps = 3;
  run.gate_every = 2;
  finetune(run);
  const auto lines = metrics_of(folder / "a");
  EXPECT_TRUE(lines[0]["gate_loss"].is_number());
  EXPECT_TRUE(lines[1]["gate_loss"].is_null());
  EXPECT_TRUE(lines[2]["gate_loss"].is_number());
}

TEST_F(Finetune, WrongSettingsAreNamed) {
  FinetuneSettings wrong = finetune_settings(folder, "a");
  wrong.length = 300;
  EXPECT_THAT(error_of(wrong), HasSubstr("longer than the 256 that the model's RoPE covers"));
  wrong = finetune_settings(folder, "a");
  wrong.attention = "dense";
  wrong.gates = folder / "gates";
  EXPECT_THAT(error_of(wrong), HasSubstr("dense attention trains no gates"));
  wrong = finetune_settings(folder, "a");
  wrong.rule = "top_p";
  EXPECT_THAT(error_of(wrong), HasSubstr("needs a strength"));
  wrong = finetune_settings(folder, "a");
  wrong.length = wrong.gate.block_size;
  EXPECT_THAT(error_of(wrong), HasSubstr("one block"));
  wrong = finetune_settings(folder, "a");
  wrong.yarn_factor = 1024;
  wrong.length = 1 << 16;
  wrong.micro_batch = wrong.sequences = 1 << 10;
  EXPECT_THAT(error_of(wrong), HasSubstr("--length or --micro-batch"));
}

TEST_F(Finetune, KilledAndResumedEndsWithTheSameBits) {
  expect_kills_change_nothing("FinetuneChild.DISABLED_Run", folder, "model.safetensors");
  EXPECT_EQ(read_file(folder / "killed" / "gates" / "attn_gate_weights.safetensors"),
            read_file(folder / "whole" / "gates" / "attn_gate_weights.safetensors"));
}

TEST(FinetuneChild, DISABLED_Run) {
  ASSERT_FALSE(child_out().empty());
  at::set_num_threads(1);
  finetune(finetune_settings(child_out().parent_path(), child_out().filename()));
}

}  // namespace
}  // namespace seer::train
