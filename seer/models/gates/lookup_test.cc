// Lookup heads: Gates::lookups() and scores(), their weights in a gate's folder, and prefill by them.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/gates/gates.h"
#include "seer/models/generate.h"
#include "seer/models/loader.h"
#include "seer/models/testing/test_model.h"
#include "seer/models/testing/watched_attention.h"

namespace seer::models::lookup_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int kBlock = 16;
constexpr double kMasked = -std::numeric_limits<double>::infinity();
using Heads = std::vector<std::vector<int>>;

io::GateConfig config_of(const Heads& heads) {
  io::GateConfig config;
  config.block_size = kBlock;
  config.lookup_rank = 16;
  config.lookup_heads = heads;
  return config;
}

// Weights that are far from uniform scores.
Gates strong_gates(const io::GateConfig& config, const Decoder& model) {
  Gates gates = Gates::create(config, model, 7);
  for (GateWeights& layer : gates.layers()) {
    for (const GateParameter& parameter : parameters_of(layer)) {
      (layer.*parameter.weight).mul_(20);
    }
  }
  return gates;
}

io::GateConfig without_lookup() {
  io::GateConfig config = config_of({});
  config.lookup_rank = 0;
  return config;
}

struct Inputs {
  explicit Inputs(const std::vector<int64_t>& lens, at::ScalarType type = at::kFloat)
      : sequences{lens, lens, 0} {
    const int64_t t = sequences.num_tokens();
    q_plain = test::normal({t, 4, 16}, 1).to(type);
    k_plain = test::normal({t, 2, 16}, 2).to(type);
    q = test::normal({t, 4, 16}, 3).mul(2).to(type);
    k = test::normal({t, 2, 16}, 4).to(type);
  }
  AttentionInput get(int layer, SequenceCache* cache = nullptr) const {
    return {layer, sequences, q_plain, k_plain, q, k, k, 1 / std::sqrt(16.0), 0, cache};
  }
  torch_ops::Ragged ragged() const {
    return torch_ops::make_ragged(sequences.q_lens, sequences.k_lens, kBlock, at::kCPU);
  }
  // The whole's tokens begin ... end - 1, with the keys up to them.
  Inputs chunk(int64_t begin, int64_t end) const {
    Inputs part = *this;
    part.sequences = {{end - begin}, {end}, sequences.num_tokens()};
    for (at::Tensor* x : {&part.q_plain, &part.k_plain, &part.q}) *x = x->slice(0, begin, end);
    part.k = k.slice(0, 0, end);
    return part;
  }
  Sequences sequences;
  at::Tensor q_plain, k_plain, q, k;
};

// t of one sequence and head by its definition, in double: q [Tq, D], k [Tk, D] -> [rows, blocks].
at::Tensor formula(const at::Tensor& q, const at::Tensor& k, const at::Tensor& a,
                   const at::Tensor& c, double scale) {
  const auto in_double = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const at::Tensor s =
      at::matmul(in_double(q).matmul(in_double(a)), in_double(k).matmul(in_double(c)).t())
          .mul(scale);
  const int64_t num_q = q.size(0), num_k = k.size(0), first = num_k - num_q;
  const int64_t rows = (num_q + kBlock - 1) / kBlock, blocks = (num_k + kBlock - 1) / kBlock;
  std::vector<at::Tensor> entries(static_cast<size_t>(rows * blocks),
                                  at::full({}, kMasked, at::kDouble));
  for (int64_t i = 0; i < num_q; ++i) {
    std::vector<at::Tensor> m;
    for (int64_t begin = 0; begin <= first + i; begin += kBlock) {
      m.push_back(s[i].slice(0, begin, std::min(begin + kBlock, first + i + 1)).max());
    }
    const at::Tensor l = at::stack(m).logsumexp(0);
    for (size_t j = 0; j < m.size(); ++j) {
      at::Tensor& entry = entries[static_cast<size_t>(i / kBlock * blocks) + j];
      entry = at::maximum(entry, m[j] - l);
    }
  }
  return at::stack(entries).view({rows, blocks});
}

void expect_near(const at::Tensor& found, const at::Tensor& wanted, double bound) {
  ASSERT_EQ(found.sizes(), wanted.sizes());
  EXPECT_TRUE(found.eq(kMasked).equal(wanted.eq(kMasked))) << "masked entries differ";
  const auto finite = [](const at::Tensor& x) { return x.masked_fill(x.eq(kMasked), 0); };
  EXPECT_LE(test::largest_difference(finite(found), finite(wanted)), bound);
}

TEST(LookupHeads, ScoresAreTheFormulaAndOtherHeadsAreAsWithout) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(config_of({{}, {1, 2}}), model),
              without = strong_gates(without_lookup(), model);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Inputs inputs({70, 7, 1, 48}, type);
    const torch_ops::Ragged ragged = inputs.ragged();
    EXPECT_TRUE(gates.scores(inputs.get(0), ragged).equal(without.scores(inputs.get(0), ragged)));
    const at::Tensor found = gates.scores(inputs.get(1), ragged),
                     other = without.scores(inputs.get(1), ragged);
    for (const int head : {0, 3}) EXPECT_TRUE(found[head].equal(other[head]));
    const GateWeights& weights = gates.layers()[1];
    for (const int head : {1, 2}) {
      int64_t token = 0, row = 0;
      for (const int64_t length : inputs.sequences.q_lens) {
        const at::Tensor wanted =
            formula(inputs.q.select(1, head).narrow(0, token, length),
                    inputs.k.select(1, head / 2).narrow(0, token, length),
                    weights.lookup_q[head - 1], weights.lookup_k[head - 1], inputs.get(1).scale);
        const int64_t blocks = wanted.size(1);
        expect_near(found[head].narrow(0, row, blocks).narrow(1, 0, blocks), wanted,
                    type == at::kFloat ? 1e-4 : 0.3);
        token += length;
        row += blocks;
      }
    }
  }
}

TEST(LookupHeads, ChunksGiveTheRowsOfTheWhole) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(config_of({{0, 1, 2, 3}, {2}}), model);
  const Inputs whole({110});
  for (const int layer : {0, 1}) {
    const at::Tensor wanted = gates.scores(whole.get(layer), whole.ragged());
    SequenceCache cache(2);
    for (const auto& [begin, end] : {std::pair(0, 32), std::pair(32, 80), std::pair(80, 110)}) {
      const Inputs chunk = whole.chunk(begin, end);
      const int64_t blocks = (end + kBlock - 1) / kBlock;
      expect_near(gates.scores(chunk.get(layer, &cache), chunk.ragged()),
                  wanted.slice(1, begin / kBlock, blocks).slice(2, 0, blocks), 1e-5);
    }
  }
}

TEST(LookupHeads, GradientIsThatOfTheFormulaAndReachesTheWeightsAlone) {
  const Decoder model = test::small_model();
  Gates gates = strong_gates(config_of({{}, {2}}), model);
  gates.make_trainable();
  Inputs inputs({70});
  for (at::Tensor* x : {&inputs.q, &inputs.k}) x->requires_grad_(true);
  const at::Tensor scores = gates.scores(inputs.get(1), inputs.ragged());
  // Of a query that sees one block t is 0, so the arg max of the first row is any of its queries.
  at::Tensor shares = test::normal({5, 5}, 9);
  shares[0][0] = 0;
  const auto loss = [&](const at::Tensor& head) {
    return head.masked_fill(head.eq(kMasked), 0).mul(shares).sum();
  };
  loss(scores[2]).backward();
  const GateWeights& weights = gates.layers()[1];
  const at::Tensor a = weights.lookup_q[0].detach().to(at::kDouble).requires_grad_(),
                   c = weights.lookup_k[0].detach().to(at::kDouble).requires_grad_();
  loss(formula(inputs.q.detach().select(1, 2), inputs.k.detach().select(1, 1), a, c,
               inputs.get(1).scale))
      .backward();
  for (const auto& [found, wanted] :
       {std::pair(weights.lookup_q.grad()[0], a.grad()), {weights.lookup_k.grad()[0], c.grad()}}) {
    EXPECT_GT(wanted.abs().max().item<double>(), 0.1);
    EXPECT_LE(test::largest_difference(found, wanted), 1e-4);
  }
  EXPECT_EQ(weights.k.grad().abs().max().item<double>(), 0) << "the gate of a lookup head";
  EXPECT_FALSE(inputs.q.grad().defined());
  EXPECT_FALSE(inputs.k.grad().defined());
}

TEST(LookupHeads, FirstWeightsAreDrawsOfTheirOwn) {
  const Decoder model = test::small_model();
  const Gates gates = Gates::create(config_of({{0, 2}, {1, 2}}), model, 7),
              without = Gates::create(without_lookup(), model, 7);
  std::vector<at::Tensor> all;
  for (size_t layer = 0; layer < 2; ++layer) {
    const GateWeights& weights = gates.layers()[layer];
    EXPECT_TRUE(weights.k.equal(without.layers()[layer].k));
    EXPECT_EQ(parameters_of(weights).size(), 3u);
    EXPECT_EQ(parameters_of(without.layers()[layer]).size(), 1u);
    for (const at::Tensor& weight : {weights.lookup_q, weights.lookup_k}) {
      EXPECT_EQ(weight.sizes(), (std::vector<int64_t>{2, 16, 16}));
      EXPECT_NEAR(weight.std().item<double>(), 0.02, 0.003);
      for (const at::Tensor& other : all) EXPECT_FALSE(weight.equal(other));
      all.push_back(weight);
    }
  }
}

TEST(LookupHeads, PrefillInChunksEqualsTheWhole) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(config_of({{1}, {0, 3}}), model),
              without = strong_gates(without_lookup(), model);
  const auto ids = test::some_ids(150);
  const auto run = [&](const Gates& by, double density, int64_t chunk) {
    SparseSettings settings;
    settings.block = kBlock;
    settings.selection.strength = {density};
    test::Watched sparse(model, &by, settings);
    SequenceCache cache(2);
    std::vector<at::Tensor> parts;
    prefill(model, ids, std::ref(sparse), chunk, cache,
            [&](const at::Tensor& hidden) { parts.push_back(hidden); });
    return at::cat(parts, 0);
  };
  const at::Tensor whole = run(gates, 0.4, 0);
  for (const int64_t chunk : {16, 48, 128}) {
    EXPECT_LE(test::largest_difference(run(gates, 0.4, chunk), whole), 2e-4) << chunk;
  }
  EXPECT_LE(test::largest_difference(run(gates, 1, 0), run(without, 1, 0)), 2e-4);
  EXPECT_GT(test::largest_difference(whole, run(without, 0.4, 0)), 0.01);
}

TEST(LookupHeads, TheMethodsGateAndUntrainedLeaveThemOut) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  const Gates gates = strong_gates(config_of({{1}, {0, 3}}), model),
              without = strong_gates(without_lookup(), model);
  const at::Tensor ids = at::tensor(test::some_ids(150), at::kLong);
  const auto run = [&](const Gates& by, const char* method) {
    SparseSettings settings;
    settings.method = method;
    settings.block = kBlock;
    settings.selection.strength = {0.4};
    test::Watched sparse(model, &by, settings);
    return model.hidden(ids, Sequences{.q_lens = {150}, .k_lens = {150}}, std::ref(sparse));
  };
  EXPECT_TRUE(run(gates, "gate").equal(run(without, "seer")));
  EXPECT_FALSE(run(gates, "gate").equal(run(gates, "seer")));
  EXPECT_TRUE(run(gates, "untrained").equal(run(without, "untrained")));
  EXPECT_TRUE(gates.layers()[0].lookup_q.defined());
}

// The method's one call chooses what its scores do.
TEST(LookupHeads, AttentionFollowsTheScores) {
  const Decoder model = test::small_model();
  Gates gates = strong_gates(config_of({{}, {1, 2}}), model);
  gates.make_trainable();
  SparseSettings settings;
  settings.block = kBlock;
  settings.selection.strength = {0.4};
  SparseAttention sparse(model, &gates, settings);
  const Inputs inputs({100, 40});
  for (const int layer : {0, 1}) {
    const AttentionInput input = inputs.get(layer);
    const auto lists = sparse.select(input, sparse.scores(input));
    EXPECT_TRUE(sparse(input).equal(std::get<0>(sparse.attend(input, lists))));
  }
}

class LookupFolder : public testing::Test {
 protected:
  LookupFolder() { strong_gates(config_of({{}, {1, 2}}), model).save(folder.path, model); }
  std::string error() const { return error_with(model); }
  std::string error_with(const Decoder& other) const {
    try {
      Gates::load(folder.path, other);
    } catch (const Error& wrong) {
      EXPECT_EQ(std::string(wrong.what()).find('\n'), std::string::npos);
      return wrong.what();
    }
    return "no error";
  }
  void change_config(const char* key, const nlohmann::json& value) const {
    const auto path = folder.path / "config.json";
    auto json = nlohmann::json::parse(read_file(path));
    json[key] = value;
    write_file_atomic(path, json.dump());
  }
  // Without the tensor; in its place `other`, where it is defined.
  void change_tensor(const std::string& name, const at::Tensor& other) const {
    const auto path = io::gate_weights_path(folder.path);
    std::vector<at::Tensor> kept;
    std::vector<io::NamedTensor> records;
    const io::SafetensorsFile file(path);
    for (const auto& [old, record] : file.tensors()) {
      if (old == name) continue;
      kept.push_back(mapped_tensor(file, old, record.shape));
      records.push_back(tensor_record(old, kept.back()));
    }
    if (other.defined()) records.push_back(tensor_record(name, other));
    io::write_safetensors(path, records);
  }
  const Decoder model = test::small_model();
  const test::TemporaryFolder folder;
};

TEST_F(LookupFolder, RoundTrip) {
  const Gates gates = strong_gates(config_of({{}, {1, 2}}), model),
              loaded = Gates::load(folder.path, model);
  EXPECT_EQ(loaded.config().lookup_rank, 16);
  EXPECT_EQ(loaded.config().lookup_heads, (Heads{{}, {1, 2}}));
  EXPECT_FALSE(loaded.layers()[0].lookup_q.defined());
  EXPECT_TRUE(loaded.layers()[1].lookup_q.equal(gates.layers()[1].lookup_q));
  EXPECT_TRUE(loaded.layers()[1].lookup_k.equal(gates.layers()[1].lookup_k));
  const Inputs inputs({70});
  EXPECT_TRUE(loaded.scores(inputs.get(1), inputs.ragged())
                  .equal(gates.scores(inputs.get(1), inputs.ragged())));
  const test::TemporaryFolder again;
  loaded.save(again.path, model);
  for (const char* file : {"config.json", "attn_gate_weights.safetensors"}) {
    EXPECT_EQ(read_file(again.path / file), read_file(folder.path / file)) << file;
  }
}

TEST_F(LookupFolder, HeadsThatTheModelDoesNotHave) {
  const std::string path = (folder.path / "config.json").string();
  change_config("seer_lookup_heads", {{"1", {1, 4}}});
  EXPECT_THAT(error(), AllOf(HasSubstr(path), HasSubstr("head 4"), HasSubstr("4 heads")));
  change_config("seer_lookup_heads", {{"2", {1, 2}}});
  EXPECT_THAT(error(), AllOf(HasSubstr(path), HasSubstr("layer 2"), HasSubstr("2 layers")));
  change_config("seer_lookup_heads", {{"1", {2, 1}}});
  EXPECT_THAT(error(), AllOf(HasSubstr(path), HasSubstr("1 comes after 2")));
  change_config("seer_lookup_heads", {{"1", {1, 2}}});
  change_config("seer_lookup_rank", 32);
  EXPECT_THAT(error(), AllOf(HasSubstr(path), HasSubstr("is 32"), HasSubstr("head size 16")));
}

TEST_F(LookupFolder, WeightsAndConfigThatDoNotBelongTogether) {
  const std::string name = io::gate_weight_name(1, "lookup_k");
  change_config("seer_lookup_heads", {{"1", {1, 2, 3}}});
  EXPECT_THAT(error(), AllOf(HasSubstr("lookup_q"), HasSubstr("[2, 16, 16]"),
                             HasSubstr("expected [3, 16, 16]")));
  change_config("seer_lookup_heads", {{"0", {1, 2}}});
  EXPECT_THAT(error(), AllOf(HasSubstr(io::gate_weight_name(0, "lookup_q")),
                             HasSubstr("is missing"), HasSubstr("names lookup heads of layer 0")));
  change_config("seer_lookup_heads", nullptr);
  change_config("seer_lookup_rank", nullptr);
  EXPECT_THAT(error(), AllOf(HasSubstr(io::gate_weight_name(1, "lookup_q")), HasSubstr("is there"),
                             HasSubstr("no lookup head of layer 1")));
  change_config("seer_lookup_heads", {{"1", {1, 2}}});
  change_config("seer_lookup_rank", 16);
  ASSERT_EQ(error(), "no error");
  change_tensor(name, at::zeros({2, 16, 32}));
  EXPECT_THAT(error(), AllOf(HasSubstr(name), HasSubstr("expected [2, 16, 16]")));
  change_tensor(name, at::full({2, 16, 16}, std::nan("")));
  EXPECT_THAT(error(), AllOf(HasSubstr(name), HasSubstr("NaN")));
  change_tensor(name, {});
  EXPECT_THAT(error(), AllOf(HasSubstr(name), HasSubstr("is missing")));
}

}  // namespace
}  // namespace seer::models::lookup_test
