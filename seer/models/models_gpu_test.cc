// Gates, sparse attention and generation on a GPU, against the CPU: the same model, rounded to bf16.

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/models/generate.h"
#include "seer/models/sparse_attention.h"
#include "seer/models/testing/test_model.h"
#include "seer/models/testing/watched_attention.h"

namespace seer::models {
namespace {

const at::Device kGpu(at::kCUDA, 0);
constexpr int kBlock = 64;

class ModelGpu : public testing::Test {
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  }
};

Decoder moved(const Decoder& model, const at::Device& device, at::ScalarType dtype) {
  ModelWeights weights = model.weights();
  for (auto& [name, weight] : named_weights(weights)) {
    *weight = weight->to(at::kBFloat16).to(device, dtype);
  }
  return Decoder(model.config(), weights);
}

// Heads of a size that the GPU's kernels take; the same weights on both devices.
struct Pair {
  static Decoder model() {
    auto config = test::small_config();
    config["head_dim"] = 64;
    return test::small_model(config);
  }
  Decoder cpu = moved(model(), at::kCPU, at::kFloat);
  Decoder gpu = moved(model(), kGpu, at::kBFloat16);
};

Gates strong_gates(const Decoder& model, const std::string& type = "Qavg_Kmaxminavg") {
  io::GateConfig config;
  config.block_size = kBlock;
  config.type = type;
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

double relative_error(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor a = got.detach().to(at::kCPU, at::kDouble);
  const at::Tensor b = want.detach().to(at::kCPU, at::kDouble);
  return a.sub(b).norm().item().toDouble() / b.norm().item().toDouble();
}

// Inputs of one layer, packed sequences, values that bf16 holds.
struct LayerInputs {
  explicit LayerInputs(const std::vector<int64_t>& lens) : sequences{lens, lens, 0} {
    const int64_t t = sequences.num_tokens();
    for (const auto& [heads, seed] : {std::pair{4, 1}, {2, 2}, {4, 3}, {2, 4}, {2, 5}}) {
      tensors.push_back(
          test::normal({t, heads, 64}, static_cast<uint64_t>(seed)).to(at::kBFloat16));
    }
  }
  AttentionInput on(const at::Device& device, at::ScalarType dtype) const {
    const auto at = [&](int i) { return tensors[static_cast<size_t>(i)].to(device, dtype); };
    return {0, sequences, at(0), at(1), at(2).mul(2), at(3), at(4), 1 / std::sqrt(64.0), 0};
  }
  Sequences sequences;
  std::vector<at::Tensor> tensors;  // q, k before RoPE; q, k after it; v
};

TEST_F(ModelGpu, SparseAttentionAgreesWithCpu) {
  const at::NoGradGuard no_grad;
  const Pair models;
  const LayerInputs inputs({700, 64, 1, 130});
  for (const char* type : {"Qavg_Kmaxminavg", "Qmaxavg_Kmin"}) {
    const Gates cpu_gates = strong_gates(models.cpu, type);
    const Gates gpu_gates = strong_gates(models.gpu, type);
    for (const auto& [rule, strength] : {std::pair{"nz_ratio", 0.4},
                                         {"row_budget", 192.0},
                                         {"threshold", 0.1},
                                         {"top_p", 0.7},
                                         {"head_budget", 0.4}}) {
      for (const char* method : {"seer", "random", "streaming"}) {
        const bool order_only = method != std::string("seer");
        if (order_only && rule != std::string("nz_ratio")) continue;
        SCOPED_TRACE(message(type, " ", rule, " ", method));
        test::Watched cpu(models.cpu, &cpu_gates, settings_of(method, strength, rule));
        test::Watched gpu(models.gpu, &gpu_gates, settings_of(method, strength, rule));
        const at::Tensor want = cpu(inputs.on(at::kCPU, at::kFloat));
        const at::Tensor got = gpu(inputs.on(kGpu, at::kBFloat16));
        EXPECT_TRUE(got.device() == kGpu);
        EXPECT_LT(relative_error(got, want), 0.01);
        EXPECT_EQ(gpu.statistics().kept_blocks, cpu.statistics().kept_blocks);
        EXPECT_EQ(gpu.statistics().causal_blocks, cpu.statistics().causal_blocks);
        EXPECT_GT(gpu.statistics().attention_seconds, 0);
      }
    }
  }
}

TEST_F(ModelGpu, MethodsWithoutGatesAgreeWithCpu) {
  const at::NoGradGuard no_grad;
  const Pair models;
  const LayerInputs inputs({700, 130});
  for (const MethodInfo& method : methods()) {
    if (method.trained) continue;
    // The order of heads is that of a pass in bf16 or f32, and inputs are not the model's.
    if (method.name == std::string("duo")) continue;
    SCOPED_TRACE(method.name);
    test::Watched cpu(models.cpu, nullptr, settings_of(method.name, 0.4));
    test::Watched gpu(models.gpu, nullptr, settings_of(method.name, 0.4));
    const at::Tensor want = cpu(inputs.on(at::kCPU, at::kFloat));
    // A block whose rank rounding changes has as little weight as its neighbour.
    EXPECT_LT(relative_error(gpu(inputs.on(kGpu, at::kBFloat16)), want), 0.05);
    EXPECT_EQ(gpu.statistics().kept_blocks, cpu.statistics().kept_blocks);
  }
}

TEST_F(ModelGpu, DuoRunsWithAsManyBlocksAsOnCpu) {
  const at::NoGradGuard no_grad;
  const Pair models;
  const LayerInputs inputs({700, 130});
  test::Watched cpu(models.cpu, nullptr, settings_of("duo", 0.4));
  test::Watched gpu(models.gpu, nullptr, settings_of("duo", 0.4));
  double kept = 0;
  for (int layer = 0; layer < models.cpu.config().num_layers; ++layer) {
    AttentionInput on_cpu = inputs.on(at::kCPU, at::kFloat),
                   on_gpu = inputs.on(kGpu, at::kBFloat16);
    on_cpu.layer = on_gpu.layer = layer;
    cpu(on_cpu);
    EXPECT_TRUE(gpu(on_gpu).isfinite().all().item().toBool());
    kept += 1;
  }
  EXPECT_EQ(kept, models.cpu.config().num_layers);
  EXPECT_EQ(gpu.statistics().kept_blocks, cpu.statistics().kept_blocks);
}

TEST_F(ModelGpu, GradientsOfGatesAgreeWithCpu) {
  const Pair models;
  const LayerInputs inputs({700, 64, 1, 130});
  const torch_ops::Ragged on_cpu =
      torch_ops::make_ragged(inputs.sequences.q_lens, inputs.sequences.k_lens, kBlock, at::kCPU);
  const torch_ops::Ragged on_gpu =
      torch_ops::make_ragged(inputs.sequences.q_lens, inputs.sequences.k_lens, kBlock, kGpu);
  for (const char* type : {"Qavg_Kmaxminavg", "Qmaxavg_Kmin"}) {
    for (const char* kind : {"kl", "mse"}) {
      SCOPED_TRACE(message(type, " ", kind));
      const auto run = [&](const Decoder& model, const torch_ops::Ragged& ragged) {
        const AttentionInput input = inputs.on(model.device(), at::kBFloat16);
        Gates gates = strong_gates(model, type);
        GateWeights& w = gates.layers()[0];
        if (w.q.defined()) w.q.requires_grad_();
        w.k.requires_grad_();
        const at::Tensor scores = gates.scores(input, ragged);
        const at::Tensor target = test::normal(scores.sizes().vec(), 21)
                                      .to(scores.device())
                                      .abs()
                                      .masked_fill(scores.detach().lt(-1e30), 0);
        const at::Tensor loss = torch_ops::gate_loss(
            scores, target.div(target.sum(2, /*keepdim=*/true)), ragged, 0.25, kind);
        loss.backward();
        std::vector<at::Tensor> out{scores.nan_to_num(0, 0, 0), loss, w.k.grad()};
        if (w.q.defined()) out.push_back(w.q.grad());
        return out;
      };
      const auto want = run(models.cpu, on_cpu), got = run(models.gpu, on_gpu);
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_LT(relative_error(got[i], want[i]), 1e-4) << i;
      }
    }
  }
}

// What they make is f16, for which a GPU rounds the weights to the type of q and k; unless they learn.
TEST_F(ModelGpu, LookupHeadsAgreeWithCpu) {
  const Pair models;
  const LayerInputs inputs({700, 64, 1, 130});
  io::GateConfig config;
  config.block_size = kBlock;
  config.lookup_rank = 32;
  config.lookup_heads = {{0, 3}, {1}};
  const auto run = [&](const Decoder& model, int layer, bool learns) {
    Gates gates = Gates::create(config, model, 11);
    if (learns) gates.make_trainable();
    AttentionInput input = inputs.on(model.device(), at::kBFloat16);
    input.layer = layer;
    const torch_ops::Lookups made = gates.lookups(input);
    EXPECT_EQ(made.q.requires_grad(), learns);
    EXPECT_EQ(made.q.scalar_type(), learns ? at::kBFloat16 : at::kHalf);
    EXPECT_EQ(made.k.scalar_type(), made.q.scalar_type());
    EXPECT_TRUE(made.q.is_contiguous() && made.k.is_contiguous());
    EXPECT_EQ(made.heads.size(0), layer == 0 ? 2 : 1);
    return made;
  };
  for (const int layer : {0, 1}) {
    for (const bool learns : {false, true}) {
      const torch_ops::Lookups want = run(models.cpu, layer, learns),
                               got = run(models.gpu, layer, learns);
      for (const auto& [x, y] : {std::pair(got.q, want.q), {got.k, want.k}}) {
        EXPECT_LT(relative_error(x, y), learns ? 1e-3 : 5e-3);
      }
    }
  }
}

TEST_F(ModelGpu, LookupHeadsRunBesideTheGate) {
  const at::NoGradGuard no_grad;
  const Pair models;
  const LayerInputs inputs({3000, 64, 1, 1130});
  io::GateConfig config;
  config.block_size = kBlock;
  config.lookup_rank = 32;
  config.lookup_heads = {{0, 3}, {1}};
  const Gates gates = Gates::create(config, models.gpu, 11);
  const auto& lens = inputs.sequences.q_lens;
  const torch_ops::Ragged ragged = torch_ops::make_ragged(lens, lens, kBlock, kGpu);
  std::vector<at::Tensor> first;
  for (int run = 0; run < 20; ++run) {
    for (const int layer : {0, 1}) {
      AttentionInput input = inputs.on(kGpu, at::kBFloat16);
      input.layer = layer;
      const at::Tensor scores = gates.scores(input, ragged).clone();
      if (run == 0) {
        const GateVectors v = gates.vectors(input, ragged);
        const torch_ops::Lookups x = gates.lookups(input);
        const at::Tensor own = torch_ops::lookup_score(x.q, x.k, ragged, input.scale);
        const at::Tensor want =
            torch_ops::with_scores_of(x.heads, own, torch_ops::attn_gate_score(v.q, v.k, ragged));
        EXPECT_TRUE(scores.equal(want));
        first.push_back(want);
      }
      EXPECT_TRUE(scores.equal(first[static_cast<size_t>(layer)])) << run;
    }
  }
}

at::Tensor hidden_of(const Decoder& model, const std::vector<int32_t>& ids,
                     const Attention& attention, int64_t chunk) {
  const at::NoGradGuard no_grad;
  SequenceCache cache(model.config().num_layers);
  std::vector<at::Tensor> parts;
  prefill(model, ids, attention, chunk, cache,
          [&](const at::Tensor& hidden) { parts.push_back(hidden); });
  return at::cat(parts, 0);
}

// How far two runs in different precision may be apart. At density 1 and with scores that are not
// computed from activations both choose the same blocks. Where a gate chooses few blocks of a model
// with random weights, rounding swaps the order of some, and their rows differ: 0.29 was seen
// between f32 and bf16 on one CPU; runs that have nothing in common are 1.4 apart.
struct Setting {
  const char* method;
  double density, limit;
};
constexpr Setting kSettings[] = {{"seer", 1, 0.05}, {"streaming", 0.4, 0.05}, {"seer", 0.4, 0.5}};

TEST_F(ModelGpu, SparseForwardAgreesWithCpu) {
  const Pair models;
  const Gates cpu_gates = strong_gates(models.cpu), gpu_gates = strong_gates(models.gpu);
  const auto ids = test::some_ids(700);
  for (const auto& [method, density, limit] : kSettings) {
    SCOPED_TRACE(message(method, " ", density));
    test::Watched cpu(models.cpu, &cpu_gates, settings_of(method, density));
    test::Watched gpu(models.gpu, &gpu_gates, settings_of(method, density));
    const at::Tensor want = hidden_of(models.cpu, ids, std::ref(cpu), 0);
    EXPECT_LT(relative_error(hidden_of(models.gpu, ids, std::ref(gpu), 0), want), limit);
    EXPECT_NEAR(gpu.statistics().density(), cpu.statistics().density(), 0.02);
  }
}

TEST_F(ModelGpu, StreamedLayersComputeTheSameBits) {
  const Pair models;
  ModelWeights weights = moved(Pair::model(), at::kCPU, at::kBFloat16).weights();
  for (at::Tensor* x : {&weights.embedding, &weights.norm}) *x = x->to(kGpu);
  weights.head = weights.embedding;
  Decoder streamed(models.gpu.config(), weights);
  streamed.stream_layers();
  const auto ids = test::some_ids(300);
  const at::Tensor want = hidden_of(models.gpu, ids, dense_attention, 0);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(hidden_of(streamed, ids, dense_attention, 0).equal(want)) << i;
  }
}

TEST_F(ModelGpu, DenseForwardAgreesWithCpu) {
  const Pair models;
  const auto ids = test::some_ids(300);
  const at::Tensor want = hidden_of(models.cpu, ids, dense_attention, 0);
  for (const int64_t chunk : {0, 64, 100}) {
    const at::Tensor got = hidden_of(models.gpu, ids, dense_attention, chunk);
    EXPECT_LT(relative_error(got, want), 0.05) << chunk;
  }
}

TEST_F(ModelGpu, PromptInChunksEqualsWhole) {
  const Pair models;
  const Gates gates = strong_gates(models.gpu);
  const auto ids = test::some_ids(700);
  for (const auto& [method, density, limit] : kSettings) {
    SCOPED_TRACE(message(method, " ", density));
    test::Watched sparse(models.gpu, &gates, settings_of(method, density));
    const at::Tensor whole = hidden_of(models.gpu, ids, std::ref(sparse), 0);
    for (const int64_t chunk : {64, 320}) {
      const at::Tensor got = hidden_of(models.gpu, ids, std::ref(sparse), chunk);
      EXPECT_LT(relative_error(got, whole), limit) << chunk;
    }
  }
}

// Each token is the most likely one after the text before it, run again as a whole without a cache:
// or as likely, as far as bf16 tells.
TEST_F(ModelGpu, GenerateWithACacheEqualsNone) {
  const Pair models;
  const Gates gates = strong_gates(models.gpu);
  test::Watched sparse(models.gpu, &gates, settings_of("seer", 1));
  GenerateSettings settings;
  settings.max_new_tokens = 12;
  std::vector<int32_t> text = test::some_ids(200);
  const auto ids = generate(models.gpu, text, std::ref(sparse), settings);
  ASSERT_EQ(ids.size(), 12u);
  for (const int32_t id : ids) {
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = at::tensor(std::vector<int64_t>(text.begin(), text.end()), at::kLong);
    const auto length = static_cast<int64_t>(text.size());
    const at::Tensor hidden =
        models.gpu.hidden(tokens.to(kGpu), {{length}, {length}, 0}, dense_attention);
    const at::Tensor logits = models.gpu.logits(hidden.slice(0, -1))[0].to(at::kFloat);
    const double best = logits.max().item().toDouble(), spread = logits.std().item().toDouble();
    EXPECT_GT(logits[id].item().toDouble(), best - 0.1 * spread) << text.size();
    text.push_back(id);
  }
  settings.temperature = 1;
  const auto once = generate(models.gpu, text, std::ref(sparse), settings);
  EXPECT_EQ(generate(models.gpu, text, std::ref(sparse), settings), once) << "the same seed";
}

TEST_F(ModelGpu, NanShowsWhereBlocksAreCounted) {
  const at::NoGradGuard no_grad;
  const Pair models;
  Gates gates = strong_gates(models.gpu);
  gates.layers()[0].k[1][3][5] = std::nan("");
  test::Watched sparse(models.gpu, &gates, settings_of("seer", 0.5));
  sparse(LayerInputs({300}).on(kGpu, at::kBFloat16));
  try {
    sparse.statistics().density();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("rows hold NaN"));
  }
}

}  // namespace
}  // namespace seer::models
