#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/gates/gates.h"
#include "seer/models/loader.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr float kMasked = -std::numeric_limits<float>::infinity();

io::GateConfig small_gates() {
  io::GateConfig config;
  config.block_size = 16;
  return config;
}

// Queries and keys before RoPE, as a layer of the small model would give them.
struct Layer {
  Sequences sequences;
  at::Tensor q, k;
  AttentionInput input(int layer = 0, SequenceCache* cache = nullptr) const {
    return {layer, sequences, q, k, {}, {}, {}, 0, 0, cache};
  }
  torch_ops::Ragged ragged(int block = 16) const {
    return torch_ops::make_ragged(sequences.q_lens, sequences.k_lens, block, at::kCPU);
  }
};
Layer layer_of(const std::vector<int64_t>& lens, uint64_t seed = 5) {
  Layer layer{{lens, lens, 0}, {}, {}};
  layer.q = test::normal({layer.sequences.num_tokens(), 4, 16}, seed);
  layer.k = test::normal({layer.sequences.num_tokens(), 2, 16}, seed + 1);
  return layer;
}

void expect_near(const at::Tensor& found, const at::Tensor& wanted, double bound) {
  ASSERT_EQ(found.sizes(), wanted.sizes());
  EXPECT_TRUE(found.eq(kMasked).equal(wanted.eq(kMasked))) << "masked entries differ";
  const auto finite = [](const at::Tensor& x) { return x.masked_fill(x.eq(kMasked), 0); };
  EXPECT_LE(test::largest_difference(finite(found), finite(wanted)), bound);
}

TEST(Gates, CreateIsNormalAndFollowsTheSeed) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(small_gates(), model, 1);
  ASSERT_EQ(gates.layers().size(), 2u);
  const at::Tensor& weight = gates.layers()[0].k;
  EXPECT_EQ(weight.sizes(), (std::vector<int64_t>{4, 48, 16}));
  EXPECT_FALSE(gates.layers()[0].q.defined());
  EXPECT_NEAR(weight.mean().item().toDouble(), 0, 0.002);
  EXPECT_NEAR(weight.std().item().toDouble(), 0.02, 0.001);
  EXPECT_TRUE(weight.equal(Gates::create(small_gates(), model, 1).layers()[0].k));
  EXPECT_FALSE(weight.equal(Gates::create(small_gates(), model, 2).layers()[0].k));
  EXPECT_FALSE(weight.equal(gates.layers()[1].k));
}

TEST(Gates, RotaryWidthOfOtherGateSizes) {
  io::GateConfig config = small_gates();
  config.gate_dim = 8;
  EXPECT_THROW(Gates::create(config, test::small_model(), 1), Error) << "llama rotates 16 features";
  auto qwen = test::small_config();
  qwen["model_type"] = "qwen2";
  qwen["architectures"] = {"Qwen2ForCausalLM"};
  EXPECT_EQ(Gates::create(config, test::small_model(qwen), 1).layers()[0].k.sizes(),
            (std::vector<int64_t>{2, 48, 8}));
  config.gate_dim = 24;
  EXPECT_EQ(Gates::create(config, test::small_model(), 1).layers()[0].q.sizes(),
            (std::vector<int64_t>{4, 16, 24}));
}

TEST(Gates, ChunksGiveTheRowsOfTheWhole) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(small_gates(), model, 1);
  const Layer whole = layer_of({110});
  const at::Tensor wanted = gates.scores(whole.input(), whole.ragged());
  SequenceCache cache(2);
  for (int repeat = 0; repeat < 2; ++repeat) {  // a new prompt needs no clearing of the cache
    for (const auto& [begin, end] : {std::pair(0, 32), std::pair(32, 80), std::pair(80, 110)}) {
      Layer chunk{
          {{end - begin}, {end}, 110}, whole.q.slice(0, begin, end), whole.k.slice(0, begin, end)};
      const at::Tensor found = gates.scores(chunk.input(0, &cache), chunk.ragged());
      expect_near(found, wanted.slice(1, begin / 16, (end + 15) / 16).slice(2, 0, (end + 15) / 16),
                  1e-6);
    }
  }
}

TEST(Gates, ChunksThatDoNotFollowAreErrors) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(small_gates(), model, 1);
  const auto run = [&](int64_t begin, int64_t end, SequenceCache* cache) {
    Layer chunk = layer_of({end - begin});
    chunk.sequences.k_lens = {end};
    gates.scores(chunk.input(0, cache), chunk.ragged());
  };
  SequenceCache cache(2);
  EXPECT_THROW(run(16, 32, nullptr), Error) << "no cache";
  EXPECT_THROW(run(16, 32, &cache), Error) << "the first chunk is not there";
  run(0, 40, &cache);
  EXPECT_THROW(run(40, 60, &cache), Error) << "not at a block";
  EXPECT_THROW(run(64, 80, &cache), Error) << "a block is left out";
}

TEST(Gates, PackedSequencesEqualSingleOnes) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(small_gates(), model, 1);
  const Layer packed = layer_of({40, 7, 64});
  const at::Tensor scores = gates.scores(packed.input(), packed.ragged());
  int64_t token = 0, row = 0;
  for (const int64_t length : packed.sequences.q_lens) {
    const Layer one{{{length}, {length}, 0},
                    packed.q.narrow(0, token, length),
                    packed.k.narrow(0, token, length)};
    const at::Tensor wanted = gates.scores(one.input(), one.ragged());
    const int64_t blocks = wanted.size(1);
    expect_near(scores.narrow(1, row, blocks).narrow(2, 0, blocks), wanted, 1e-6);
    token += length;
    row += blocks;
  }
}

TEST(Gates, GradientReachesTheWeightsAlone) {
  const Decoder model = test::small_model();
  io::GateConfig config = small_gates();
  config.force_double = true;
  Gates gates = Gates::create(config, model, 1);
  GateWeights& weights = gates.layers()[1];
  weights.q.requires_grad_(true);
  weights.k.requires_grad_(true);
  Layer layer = layer_of({50});
  layer.q.requires_grad_(true);
  const at::Tensor scores = gates.scores(layer.input(1), layer.ragged());
  scores.masked_fill(scores.eq(kMasked), 0).pow(2).sum().backward();
  EXPECT_GT(weights.q.grad().abs().max().item().toDouble(), 0);
  EXPECT_GT(weights.k.grad().abs().max().item().toDouble(), 0);
  EXPECT_FALSE(layer.q.grad().defined());
}

TEST(Gates, OtherBlockSizeIsAnError) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(small_gates(), model, 1);
  const Layer layer = layer_of({50});
  EXPECT_THROW(gates.scores(layer.input(), layer.ragged(32)), Error);
}

std::string load_error(const std::filesystem::path& folder, const Decoder& model) {
  try {
    Gates::load(folder, model);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

TEST(GatesFolder, RoundTrip) {
  const Decoder model = test::small_model();
  for (const bool force_double : {false, true}) {
    const test::TemporaryFolder folder;
    io::GateConfig config = small_gates();
    config.force_double = force_double;
    const Gates gates = Gates::create(config, model, 7);
    gates.save(folder.path, model);
    const Gates loaded = Gates::load(folder.path, model);
    EXPECT_EQ(loaded.config().block_size, 16);
    ASSERT_EQ(loaded.layers().size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(loaded.layers()[i].k.equal(gates.layers()[i].k));
      ASSERT_EQ(loaded.layers()[i].q.defined(), force_double);
      if (force_double) {
        EXPECT_TRUE(loaded.layers()[i].q.equal(gates.layers()[i].q));
      }
    }
  }
}

TEST(GatesFolder, GatesOfAnotherModelAreNamed) {
  const test::TemporaryFolder folder;
  const Decoder model = test::small_model();
  Gates::create(small_gates(), model, 7).save(folder.path, model);
  auto longer = test::small_config(), wider = test::small_config();
  longer["num_hidden_layers"] = 3;
  wider["num_attention_heads"] = 8;
  EXPECT_THAT(load_error(folder.path, test::small_model(longer)),
              AllOf(HasSubstr("2 tensors"), HasSubstr("expected 3"), HasSubstr("another model")));
  EXPECT_THAT(load_error(folder.path, test::small_model(wider)),
              AllOf(HasSubstr("[4, 48, 16]"), HasSubstr("expected [8, 48, 16]")));
}

TEST(GatesFolder, GatesOfOtherWeightsAreRefused) {
  const test::TemporaryFolder folder;
  const Decoder model = test::small_model(), other = test::small_model(test::small_config(), 2);
  Gates::create(small_gates(), model, 7).save(folder.path, model);
  EXPECT_THAT(load_error(folder.path, other),
              AllOf(HasSubstr((folder.path / "config.json").string()),
                    HasSubstr(model.origin().fingerprint), HasSubstr(other.origin().fingerprint),
                    HasSubstr("--foreign-gates")));
  EXPECT_EQ(Gates::load(folder.path, other, /*foreign=*/true).layers().size(), 2u);

  // As published ones: nothing is said of the weights.
  const auto path = folder.path / "config.json";
  auto json = nlohmann::json::parse(read_file(path));
  json.erase("base_model_fingerprint");
  write_file_atomic(path, json.dump());
  const Gates gates = Gates::load(folder.path, other);
  EXPECT_EQ(gates.config().fingerprint, "");
}

TEST(GatesFolder, GatesOfAnotherConfigAreRefused) {
  const test::TemporaryFolder folder;
  const Decoder model = test::small_model();
  Gates::create(small_gates(), model, 7).save(folder.path, model);
  const auto changed = [&](const char* key, const nlohmann::json& value) {
    auto config = test::small_config();
    config[key] = value;
    return load_error(folder.path, test::small_model(config));
  };
  const auto changed_in_folder = [&](const char* key, const nlohmann::json& value) {
    const auto path = folder.path / "config.json";
    const std::string before = read_file(path);
    auto json = nlohmann::json::parse(before);
    json[key] = value;
    write_file_atomic(path, json.dump());
    const std::string error = load_error(folder.path, test::small_model());
    write_file_atomic(path, before);
    return error;
  };
  EXPECT_THAT(changed("rope_theta", 20000.0),
              AllOf(HasSubstr("RoPE"), HasSubstr("theta 10000"), HasSubstr("here 20000")));
  EXPECT_THAT(changed("rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}),
              HasSubstr("RoPE"));
  EXPECT_THAT(changed("rms_norm_eps", 0.5), HasSubstr("rms_norm_eps"));
  const std::string heads = changed_in_folder("head_dim", 8);
  EXPECT_THAT(heads, AllOf(HasSubstr("heads of 8 features, here"), Not(HasSubstr("RoPE"))));
  EXPECT_EQ(changed("max_position_embeddings", 8192), "no error");
  EXPECT_EQ(changed("torch_dtype", "bfloat16"), "no error");
  EXPECT_EQ(changed("bos_token_id", 7), "no error");
}

TEST(GatesFolder, NotFiniteWeightsAreNamed) {
  const test::TemporaryFolder folder;
  const Decoder model = test::small_model();
  Gates gates = Gates::create(small_gates(), model, 7);
  gates.layers()[1].k.view({-1})[100].fill_(std::nan(""));
  gates.save(folder.path, model);
  EXPECT_THAT(load_error(folder.path, model),
              AllOf(HasSubstr(io::gate_weight_name(1, "mask_linear_k")), HasSubstr("NaN")));
}

// What the published implementation computed: file, case, its kind of model and RoPE.
struct Golden {
  const char *file, *name, *family;
  int heads, kv_heads, head_dim;
  double theta;
  const char *rope, *type;
  int block, gate_dim;
  bool force_double;
};
const Golden kGolden[] = {
    {"gate_single", "a", "llama", 2, 2, 32, 1e4, "default", "Qavg_Kmaxminavg", 32, 32, false},
    {"gate_single", "b", "llama", 4, 1, 32, 5e5, "llama3", "Qavg_Kmaxminavg", 16, 32, false},
    {"gate_single", "c", "llama", 2, 1, 64, 5e5, "yarn", "Qavg_Kmaxminavg", 64, 64, false},
    {"gate_double", "a", "qwen2", 4, 1, 32, 1e6, "default", "Qmaxavg_Kmaxmin", 32, 16, true},
    {"gate_double", "b", "llama", 4, 2, 32, 5e5, "llama3", "Qavg_Kmaxminavg", 16, 32, true},
    {"gate_double", "c", "llama", 2, 1, 16, 1e4, "default", "Qmaxminavg_Kavg", 16, 24, true},
    {"gate_double", "d", "qwen2", 2, 1, 16, 1e4, "default", "Qmin_Kminavg", 16, 24, true},
};

nlohmann::json golden_model(const Golden& g) {
  auto config = test::small_config();
  config["model_type"] = g.family;
  config["architectures"] = {std::string(g.family) == "qwen2" ? "Qwen2ForCausalLM"
                                                              : "LlamaForCausalLM"};
  config["num_hidden_layers"] = 1;
  config["num_attention_heads"] = g.heads;
  config["num_key_value_heads"] = g.kv_heads;
  config["head_dim"] = g.head_dim;
  config["rope_theta"] = g.theta;
  config["max_position_embeddings"] = 32768;
  nlohmann::json scaling = {{"rope_type", g.rope}, {"original_max_position_embeddings", 8192}};
  if (std::string(g.rope) == "yarn") scaling["factor"] = 4.0;
  if (std::string(g.rope) == "llama3") {
    scaling.update({{"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}});
  }
  if (std::string(g.rope) != "default") config["rope_scaling"] = scaling;
  return config;
}

TEST(Gates, EqualThePublishedImplementation) {
  const char* set = std::getenv("SEER_GOLDEN");
  const std::filesystem::path golden = set ? set : SEER_SOURCE_DIR "/../shared/golden";
  if (!std::filesystem::exists(golden)) GTEST_SKIP() << "no golden files in " << golden;
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(std::string(g.file) + "/" + g.name);
    const io::SafetensorsFile file(golden / (std::string(g.file) + ".safetensors"));
    const auto get = [&](const std::string& tensor) {
      const std::string name = g.name + ("/" + tensor);
      return load_tensor(file, name, file.at(name).shape, at::kFloat, at::kCPU);
    };
    const Decoder model = test::small_model(golden_model(g));
    io::GateConfig config;
    config.type = g.type;
    config.block_size = g.block;
    config.gate_dim = g.gate_dim;
    config.force_double = g.force_double;
    Gates gates = Gates::create(config, model, 1);
    ASSERT_EQ(gates.layers()[0].k.sizes(), get("weight_k").sizes());
    gates.layers()[0].k = get("weight_k");
    if (g.force_double) gates.layers()[0].q = get("weight_q");
    const at::Tensor q = get("q"), k = get("k"), wanted = get("scores");
    for (int64_t b = 0; b < q.size(0); ++b) {
      const Layer layer{{{q.size(1)}, {q.size(1)}, 0}, q[b], k[b]};
      const at::Tensor found = gates.scores(layer.input(), layer.ragged(g.block));
      ASSERT_EQ(found.sizes(), wanted[b].sizes());
      const auto lower = [](const at::Tensor& x) { return x.masked_fill(x.lt(-1e30), 0); };
      EXPECT_LE(test::largest_difference(lower(found), lower(wanted[b])), 2e-5);
    }
  }
}

}  // namespace
}  // namespace seer::models
