// The decoder, the gates and sparse attention on a GPU beside the same on the CPU, both in bf16.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/models/generate.h"
#include "seer/models/sparse_attention.h"
#include "seer/models/test_model.h"

namespace seer::models {
namespace {

constexpr int kBlock = 64;
const at::Device kGpu(at::kCUDA, 0);

class ModelOnGpu : public testing::Test {
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  }
  const at::NoGradGuard no_grad_;
};

// Head size 64, which the kernels take.
Decoder model_on(const at::Device& device) {
  nlohmann::json config = test::small_config();
  config["hidden_size"] = 256, config["intermediate_size"] = 512, config["head_dim"] = 64;
  Decoder model = test::small_model(config);
  ModelWeights weights = model.weights();
  for (auto& [name, weight] : named_weights(weights)) {
    const bool is_matrix = weight->dim() == 2 && name != "model.embed_tokens.weight";
    *weight = weight->mul(is_matrix ? 0.3 : 1.0).to(device, at::kBFloat16);
  }
  weights.head = weights.embedding;
  return {model.config(), weights};
}

Gates gates_for(const Decoder& model) {
  Gates gates = Gates::create({}, model, 11);
  for (GateWeights& w : gates.layers()) w.k = w.k.mul(20);  // scores clear of one another
  return gates;
}

SparseSettings settings_of(Scorer scorer, double strength) {
  SparseSettings settings{.scorer = scorer, .selection = {}, .block = kBlock, .seed = 3};
  settings.selection.strength = {strength};
  return settings;
}

double relative(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor g = got.to(at::kCPU, at::kFloat), w = want.to(at::kCPU, at::kFloat);
  return (g.sub(w).norm() / w.norm()).item().toDouble();
}

at::Tensor id_tensor(int64_t count, const at::Device& device) {
  const std::vector<int32_t> ids = test::some_ids(count);
  return at::from_blob(const_cast<int32_t*>(ids.data()), {count}, at::TensorOptions(at::kInt))
      .to(at::TensorOptions(at::kLong).device(device));
}

TEST_F(ModelOnGpu, DenseHiddenStatesAreTheCpus) {
  const Decoder cpu = model_on(at::kCPU), gpu = model_on(kGpu);
  const Sequences sequences{{300, 64, 1}, {300, 64, 1}, 0};
  EXPECT_LT(relative(gpu.hidden(id_tensor(365, kGpu), sequences, dense_attention),
                     cpu.hidden(id_tensor(365, at::kCPU), sequences, dense_attention)),
            0.03);
}

struct Inputs {
  Sequences sequences;
  std::vector<at::Tensor> x;  // q, k before RoPE, q, k, v
  AttentionInput get() const {
    return {0, sequences, x[0], x[1], x[2], x[3], x[4], 1 / std::sqrt(64.0), 0};
  }
};
Inputs inputs_on(const at::Device& device, const std::vector<int64_t>& lens) {
  const Sequences sequences{lens, lens, 0};
  Inputs inputs{sequences, {}};
  const int64_t heads[] = {4, 2, 4, 2, 2};
  for (int i = 0; i < 5; ++i) {
    inputs.x.push_back(
        test::normal({sequences.num_tokens(), heads[i], 64}, i + 1).to(device, at::kBFloat16));
  }
  return inputs;
}

TEST_F(ModelOnGpu, SparseAttentionIsTheCpusForEveryScorer) {
  const Decoder cpu = model_on(at::kCPU), gpu = model_on(kGpu);
  const Gates cpu_gates = gates_for(cpu), gpu_gates = gates_for(gpu);
  for (const Scorer scorer :
       {Scorer::gate, Scorer::untrained, Scorer::random, Scorer::streaming, Scorer::oracle}) {
    for (const double strength : {0.3, 1.0}) {
      SCOPED_TRACE(std::string(name(scorer)) + " " + std::to_string(strength));
      SparseAttention on_cpu(cpu, &cpu_gates, settings_of(scorer, strength));
      SparseAttention on_gpu(gpu, &gpu_gates, settings_of(scorer, strength));
      for (const std::vector<int64_t>& lens : {std::vector<int64_t>{1500}, {300, 64, 1, 130}}) {
        const Inputs a = inputs_on(at::kCPU, lens), b = inputs_on(kGpu, lens);
        EXPECT_LT(relative(on_gpu(b.get()), on_cpu(a.get())), 0.02);
      }
      EXPECT_EQ(on_gpu.statistics().kept_blocks, on_cpu.statistics().kept_blocks);
      EXPECT_GT(on_gpu.statistics().attention_seconds, 0);
    }
  }
}

TEST_F(ModelOnGpu, StreamedLayersComputeTheSameBits) {
  const Decoder resident = model_on(kGpu);
  const Decoder host = model_on(at::kCPU);
  ModelWeights weights = host.weights();
  for (at::Tensor* x : {&weights.embedding, &weights.norm}) *x = x->to(kGpu);
  weights.head = weights.embedding;
  Decoder streamed(host.config(), weights);
  streamed.stream_layers();
  const Sequences sequences{{300}, {300}, 0};
  const at::Tensor ids = id_tensor(300, kGpu);
  const at::Tensor want = resident.hidden(ids, sequences, dense_attention);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(streamed.hidden(ids, sequences, dense_attention).equal(want)) << i;
  }
}

TEST_F(ModelOnGpu, PromptInChunksEqualsWhole) {
  const Decoder model = model_on(kGpu);
  const Gates gates = gates_for(model);
  SparseAttention sparse(model, &gates, settings_of(Scorer::gate, 0.4));
  const auto ids = test::some_ids(700);
  const auto run = [&](int64_t chunk) {
    KvCache cache(2);
    std::vector<at::Tensor> parts;
    prefill(model, ids, std::ref(sparse), chunk, cache,
            [&](const at::Tensor& hidden) { parts.push_back(hidden); });
    return at::cat(parts, 0);
  };
  const at::Tensor whole = run(0);
  for (const int64_t chunk : {64, 192, 512}) EXPECT_LT(relative(run(chunk), whole), 0.05) << chunk;
}

TEST_F(ModelOnGpu, GenerationContinuesASparsePrompt) {
  const Decoder model = model_on(kGpu);
  const Gates gates = gates_for(model);
  SparseAttention sparse(model, &gates, settings_of(Scorer::gate, 0.4));
  GenerateSettings settings;
  settings.max_new_tokens = 12;
  settings.temperature = 0;
  const auto once = [&] {
    sparse.reset();
    return generate(model, test::some_ids(500), std::ref(sparse), settings);
  };
  const std::vector<int32_t> ids = once();
  EXPECT_EQ(ids.size(), 12u);
  EXPECT_EQ(once(), ids);
}

}  // namespace
}  // namespace seer::models
