#include "seer/models/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <set>

#include "seer/base/error.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

at::Tensor prompt_hidden(const Decoder& model, const std::vector<int32_t>& ids, int64_t chunk) {
  const at::NoGradGuard no_grad;
  SequenceCache cache(model.config().num_layers);
  std::vector<at::Tensor> parts;
  prefill(model, ids, dense_attention, chunk, cache,
          [&](const at::Tensor& hidden) { parts.push_back(hidden); });
  EXPECT_EQ(cache.length(), static_cast<int64_t>(ids.size()));
  return at::cat(parts, 0);
}

TEST(Prefill, ChunksEqualWhole) {
  const Decoder model = test::small_model();
  const auto ids = test::some_ids(150);
  const at::Tensor whole = prompt_hidden(model, ids, 0);
  for (const int64_t chunk : {1, 16, 64, 149, 150, 1000}) {
    EXPECT_LE(test::largest_difference(prompt_hidden(model, ids, chunk), whole), 1e-4) << chunk;
  }
}

TEST(Prefill, PackedSequencesEqualSingleOnes) {
  const Decoder model = test::small_model();
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> ids, single;
  const std::vector<int64_t> lens = {40, 3, 77};
  for (const int64_t length : lens) {
    ids.push_back(at::tensor(test::some_ids(length, static_cast<uint64_t>(length)), at::kLong));
    single.push_back(model.hidden(ids.back(), {{length}, {length}, 0}, dense_attention));
  }
  const at::Tensor packed = model.hidden(at::cat(ids, 0), {lens, lens, 0}, dense_attention);
  EXPECT_LE(test::largest_difference(packed, at::cat(single, 0)), 1e-4);
}

TEST(Prefill, RejectsWrongPrompts) {
  const Decoder model = test::small_model();
  SequenceCache cache(2);
  const auto take = [](const at::Tensor&) {};
  EXPECT_THROW(prefill(model, {}, dense_attention, 0, cache, take), Error);
  EXPECT_THROW(prefill(model, {1, 120}, dense_attention, 0, cache, take), Error);
  EXPECT_THROW(prefill(model, {1, -1}, dense_attention, 0, cache, take), Error);
  EXPECT_THROW(prefill(model, {1}, dense_attention, -1, cache, take), Error);
  prefill(model, {1}, dense_attention, 0, cache, take);
  EXPECT_THROW(prefill(model, {1}, dense_attention, 0, cache, take), Error) << "cache not empty";
}

TEST(Hidden, DifferentiableInAllWeights) {
  Decoder model = test::small_model();
  for (auto& [name, weight] : named_weights(model.weights())) weight->requires_grad_(true);
  const at::Tensor ids = at::tensor(test::some_ids(30), at::kLong);
  model.logits(model.hidden(ids, {{30}, {30}, 0}, dense_attention)).pow(2).sum().backward();
  for (auto& [name, weight] : named_weights(model.weights())) {
    ASSERT_TRUE(weight->grad().defined()) << name;
    EXPECT_GT(weight->grad().abs().max().item().toDouble(), 0) << name;
  }
}

TEST(Generate, GreedyEqualsRunningTheWholeTextAgain) {
  const Decoder model = test::small_model();
  const auto prompt = test::some_ids(33);
  GenerateSettings settings;
  settings.max_new_tokens = 12;
  std::vector<int32_t> seen;
  const auto ids =
      generate(model, prompt, dense_attention, settings, [&](int32_t id) { seen.push_back(id); });
  EXPECT_EQ(ids.size(), 12u);
  EXPECT_EQ(ids, seen);
  std::vector<int32_t> text = prompt;
  for (const int32_t id : ids) {
    const at::Tensor last = prompt_hidden(model, text, 0).slice(0, -1);
    EXPECT_EQ(id, sample(model.logits(last)[0], settings, 0));
    text.push_back(id);
  }
}

TEST(Generate, StopsAtEndOfText) {
  GenerateSettings settings;
  settings.max_new_tokens = 12;
  const auto prompt = test::some_ids(33);
  const auto ids = generate(test::small_model(), prompt, dense_attention, settings);
  auto config = test::small_config();
  config["eos_token_id"] = {119, ids[4]};
  const auto shorter = generate(test::small_model(config), prompt, dense_attention, settings);
  const auto end = std::find(ids.begin(), ids.end(), ids[4]) + 1;
  EXPECT_EQ(shorter, std::vector<int32_t>(ids.begin(), end));
}

TEST(Generate, SameSeedSameText) {
  const Decoder model = test::small_model();
  GenerateSettings settings;
  settings.temperature = 1;
  settings.max_new_tokens = 20;
  std::set<std::vector<int32_t>> texts;
  for (const uint64_t seed : {1, 2, 1, 2}) {
    settings.seed = seed;
    texts.insert(generate(model, test::some_ids(5), dense_attention, settings));
  }
  EXPECT_EQ(texts.size(), 2u);
}

TEST(Sample, FrequenciesFollowTheSettings) {
  // Probabilities 0.5, 0.3, 0.15, 0.05 of the ids 2, 0, 3, 1.
  const at::Tensor logits =
      at::tensor(std::vector<float>{0.3f, 0.05f, 0.5f, 0.15f}, at::kFloat).log();
  const auto count = [&](double temperature, double top_p, int64_t top_k) {
    GenerateSettings settings;
    settings.temperature = temperature;
    settings.top_p = top_p;
    settings.top_k = top_k;
    std::vector<double> share(4, 0);
    for (int64_t step = 0; step < 4000; ++step) {
      share[static_cast<size_t>(sample(logits, settings, step))] += 1.0 / 4000;
    }
    return share;
  };
  const auto near = [](const std::vector<double>& found, const std::vector<double>& wanted) {
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 0.03) << i;
  };
  near(count(1, 1, 0), {0.3, 0.05, 0.5, 0.15});
  near(count(1, 1, 2), {0.375, 0, 0.625, 0});
  near(count(1, 0.79, 0), {0.375, 0, 0.625, 0});
  near(count(1, 0.85, 0), {0.3 / 0.95, 0, 0.5 / 0.95, 0.15 / 0.95});
  near(count(0.5, 1, 0), {0.09 / 0.365, 0.0025 / 0.365, 0.25 / 0.365, 0.0225 / 0.365});
  EXPECT_EQ(count(1, 1e-9, 0)[2], count(0, 1, 0)[2]);
}

TEST(Sample, RejectsWrongSettings) {
  const Decoder model = test::small_model();
  const auto run = [&](const std::function<void(GenerateSettings&)>& change) {
    GenerateSettings settings;
    settings.max_new_tokens = 1;
    change(settings);
    generate(model, {1}, dense_attention, settings);
  };
  EXPECT_NO_THROW(run([](auto&) {}));
  EXPECT_THROW(run([](auto& s) { s.temperature = -1; }), Error);
  EXPECT_THROW(run([](auto& s) { s.top_p = 0; }), Error);
  EXPECT_THROW(run([](auto& s) { s.top_p = 1.1; }), Error);
  EXPECT_THROW(run([](auto& s) { s.top_k = -1; }), Error);
  EXPECT_THROW(run([](auto& s) { s.max_new_tokens = -1; }), Error);
}

}  // namespace
}  // namespace seer::models
