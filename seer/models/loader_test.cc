#include "seer/models/loader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Decoder load(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat) {
  return Decoder::load(folder, dtype, at::kCPU);
}

std::string error_of(const std::filesystem::path& folder) {
  try {
    load(folder);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

nlohmann::json family(const std::string& type, const std::string& architecture) {
  auto config = test::small_config();
  config["model_type"] = type;
  config["architectures"] = {architecture};
  config["tie_word_embeddings"] = false;
  config["sliding_window"] = nullptr;
  return config;
}

TEST(SaveModel, RoundTripKeepsEveryBit) {
  for (const auto& json : {test::small_config(), family("qwen2", "Qwen2ForCausalLM"),
                           family("phi3", "Phi3ForCausalLM")}) {
    SCOPED_TRACE(json["model_type"]);
    const test::TemporaryFolder folder;
    Decoder model = test::small_model(json);
    save_model(folder.path, json, model.weights());
    Decoder loaded = load(folder.path);
    const auto expected = named_weights(model.weights()), found = named_weights(loaded.weights());
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].first, expected[i].first);
      EXPECT_TRUE(found[i].second->equal(*expected[i].second)) << found[i].first;
    }
    EXPECT_EQ(loaded.config().raw, json);
  }
}

TEST(SaveModel, KeepsTheTypeAndOverwrites) {
  const test::TemporaryFolder folder;
  Decoder model = test::small_model();
  save_model(folder.path, test::small_config(), model.weights());
  for (auto& [name, weight] : named_weights(model.weights())) *weight = weight->to(at::kBFloat16);
  save_model(folder.path, test::small_config(), model.weights());
  const io::SafetensorsFile file(folder.path / "model.safetensors");
  for (const auto& [name, record] : file.tensors()) EXPECT_EQ(record.dtype, "BF16") << name;
  EXPECT_FALSE(file.contains("lm_head.weight")) << "tied";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), 2);
}

TEST(Load, StaysOnMappedPagesOnlyWhenTheTypeIsTheFiles) {
  const test::TemporaryFolder folder;
  Decoder model = test::small_model();
  save_model(folder.path, test::small_config(), model.weights());
  const Decoder converted = load(folder.path, at::kBFloat16);
  EXPECT_EQ(converted.dtype(), at::kBFloat16);
  const io::SafetensorsFile file(folder.path / "model.safetensors");
  const at::Tensor mapped = load_tensor(file, "model.norm.weight", {64}, at::kFloat, at::kCPU);
  EXPECT_EQ(mapped.const_data_ptr(), file.at("model.norm.weight").data);
}

TEST(Load, MappingOutlivesTheFile) {
  const test::TemporaryFolder folder;
  Decoder model = test::small_model();
  save_model(folder.path, test::small_config(), model.weights());
  Decoder loaded = load(folder.path);
  std::filesystem::remove_all(folder.path);
  EXPECT_TRUE(loaded.weights().norm.equal(model.weights().norm));
}

TEST(Load, FusedWeightsAreViews) {
  const test::TemporaryFolder folder;
  const auto json = family("phi3", "Phi3ForCausalLM");
  save_model(folder.path, json, test::small_model(json).weights());
  Decoder loaded = load(folder.path);
  const LayerWeights& w = loaded.weights().layers[0];
  EXPECT_TRUE(w.q.is_alias_of(w.k) && w.gate.is_alias_of(w.up));
  EXPECT_TRUE(w.k.is_contiguous());
}

// A saved model with its weights changed before it is written.
std::string error_after(const std::function<void(ModelWeights&)>& change) {
  const test::TemporaryFolder folder;
  Decoder model = test::small_model();
  ModelWeights weights = model.weights();
  change(weights);
  save_model(folder.path, test::small_config(), weights);
  return error_of(folder.path);
}

TEST(Load, WrongWeightsAreNamed) {
  EXPECT_EQ(error_after([](ModelWeights&) {}), "no error");
  EXPECT_THAT(error_after([](ModelWeights& w) { w.layers[1].k = at::Tensor(); }),
              AllOf(HasSubstr("model.safetensors"),
                    HasSubstr("model.layers.1.self_attn.k_proj.weight"), HasSubstr("missing")));
  EXPECT_THAT(error_after([](ModelWeights& w) { w.layers[0].up = w.layers[0].up.t(); }),
              AllOf(HasSubstr("model.layers.0.mlp.up_proj.weight"), HasSubstr("[64, 96]"),
                    HasSubstr("expected [96, 64]")));
  EXPECT_THAT(error_after([](ModelWeights& w) { w.layers[0].q_bias = test::normal({64}, 1); }),
              AllOf(HasSubstr("q_proj.bias"), HasSubstr("not accounted for")));
}

TEST(Load, NotFiniteIsFoundWhereverItIs) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double value : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const int64_t at : {0, 777, 64 * 96 - 1}) {
        EXPECT_THAT(error_after([&](ModelWeights& w) {
                      w.layers[1].down = w.layers[1].down.to(type).clone();
                      w.layers[1].down.view({-1})[at].fill_(value);
                    }),
                    AllOf(HasSubstr("model.layers.1.mlp.down_proj.weight"), HasSubstr("NaN")));
      }
    }
  }
  EXPECT_EQ(error_after([](ModelWeights& w) {
              w.norm = at::full({64}, std::numeric_limits<float>::max(), at::kFloat);
              w.layers[0].input_norm = at::full({64}, -65504.0, at::kHalf);
            }),
            "no error")
      << "the largest finite values";
}

TEST(Load, WrongFolders) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(error_of(folder.path / "nothing"), HasSubstr("not a folder"));
  EXPECT_THAT(error_of(folder.path), HasSubstr("config.json"));
  write_file_atomic(folder.path / "config.json", test::small_config().dump());
  EXPECT_THAT(error_of(folder.path), HasSubstr("model.safetensors.index.json"));
  const auto index = folder.path / "model.safetensors.index.json";
  write_file_atomic(index, "{}");
  EXPECT_THAT(error_of(folder.path), HasSubstr("weight_map"));
  for (const char* name : {"../x.safetensors", "/etc/x", "", "..", "a/b"}) {
    write_file_atomic(index, nlohmann::json{{"weight_map", {{"a", name}}}}.dump());
    EXPECT_THAT(error_of(folder.path), HasSubstr("expected the name of a file")) << name;
  }
  write_file_atomic(index, nlohmann::json{{"weight_map", {{"a", 3}}}}.dump());
  EXPECT_THAT(error_of(folder.path), HasSubstr("a string"));
}

// Writes the tensors of a small model and `more` into one file.
void save_with(const std::filesystem::path& folder, const nlohmann::json& config,
               const std::vector<std::pair<std::string, at::Tensor>>& more) {
  Decoder model = test::small_model(config);
  save_model(folder, config, model.weights());
  std::vector<io::NamedTensor> records;
  for (const auto& [name, tensor] : named_weights(model.weights())) {
    records.push_back(tensor_record(name, *tensor));
  }
  for (const auto& [name, tensor] : more) records.push_back(tensor_record(name, tensor));
  io::write_safetensors(folder / "model.safetensors", records, {});
}

TEST(Load, AStoredHeadThatDiffersIsKept) {
  auto tied = test::small_config();
  tied["tie_word_embeddings"] = true;
  const test::TemporaryFolder folder, again;
  const at::Tensor embedding = test::small_model(tied).weights().embedding;
  const at::Tensor head = test::normal(embedding.sizes().vec(), 9);
  save_with(folder.path, tied, {{"lm_head.weight", head}});
  testing::internal::CaptureStderr();
  Decoder model = load(folder.path);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("lm_head.weight"), HasSubstr("differs")));
  EXPECT_TRUE(model.weights().head.equal(head));
  EXPECT_TRUE(model.weights().embedding.equal(embedding));
  EXPECT_FALSE(model.config().tied_embeddings);
  save_model(again.path, model.config().raw, model.weights());
  EXPECT_TRUE(load(again.path).weights().head.equal(head));

  save_with(folder.path, tied, {{"lm_head.weight", embedding.clone()}});
  testing::internal::CaptureStderr();
  Decoder one = load(folder.path);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(one.weights().head.is_same(one.weights().embedding));
}

TEST(Load, WhatNoModelNeedsIsLeftOut) {
  const auto config = test::small_config();
  const test::TemporaryFolder folder;
  const auto warning = [&](const char* name) {
    save_with(folder.path, config, {{name, test::normal({4}, 1)}});
    testing::internal::CaptureStderr();
    load(folder.path);
    return testing::internal::GetCapturedStderr();
  };
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
        "model.layers.1.self_attn.masked_bias", "model.layers.1.attention.bias"}) {
    EXPECT_EQ(warning(name), "") << name;
  }
  for (const char* name : {"model.layers.99.mlp.up_proj.weight", "vision.weight", "lm_head.bias"}) {
    EXPECT_THAT(warning(name), AllOf(HasSubstr(name), HasSubstr("left out"))) << name;
  }
  const auto odd = folder.path / "\x1b[31m";
  save_with(odd, config, {{"vision.weight", test::normal({4}, 1)}});
  testing::internal::CaptureStderr();
  load(odd);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("/\\u001b[31m/model"));
}

TEST(Load, AnIndexCountsOnlyForWhatIsNeeded) {
  const auto config = test::small_config();
  const test::TemporaryFolder folder;
  save_with(folder.path, config, {});
  std::filesystem::rename(folder.path / "model.safetensors", folder.path / "one.safetensors");
  Decoder model = test::small_model(config);
  nlohmann::json map;
  for (const auto& [name, tensor] : named_weights(model.weights())) map[name] = "one.safetensors";
  map["vision.weight"] = "nowhere.safetensors";
  map.erase("model.norm.weight");  // found all the same
  const auto index = folder.path / "model.safetensors.index.json";
  write_file_atomic(index, nlohmann::json{{"weight_map", map}}.dump());
  EXPECT_EQ(error_of(folder.path), "no error");
  map["model.extra.weight"] = "one.safetensors";
  map["model.embed_tokens.weight"] = "nowhere.safetensors";
  write_file_atomic(index, nlohmann::json{{"weight_map", map}}.dump());
  EXPECT_EQ(error_of(folder.path), "no error") << "another file has it";
  save_with(folder.path, config, {});
  const io::SafetensorsFile all(folder.path / "model.safetensors");
  std::vector<io::NamedTensor> rest;
  for (const auto& [name, record] : all.tensors()) {
    if (name != "model.embed_tokens.weight") rest.push_back({name, record});
  }
  io::write_safetensors(folder.path / "one.safetensors", rest, {});
  std::filesystem::remove(folder.path / "model.safetensors");
  EXPECT_THAT(error_of(folder.path),
              AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("nowhere.safetensors"),
                    HasSubstr("not there")));
}

TEST(Load, NamesOfADecoderWithoutAHead) {
  const auto config = test::small_config();  // tied
  const test::TemporaryFolder folder;
  Decoder model = test::small_model(config);
  save_model(folder.path, config, model.weights());
  std::vector<io::NamedTensor> records;
  for (const auto& [name, tensor] : named_weights(model.weights())) {
    records.push_back(tensor_record(name.substr(std::string("model.").size()), *tensor));
  }
  io::write_safetensors(folder.path / "model.safetensors", records, {});
  EXPECT_TRUE(load(folder.path).weights().norm.equal(model.weights().norm));
}

TEST(Load, StandInsAreNamed) {
  const test::TemporaryFolder folder;
  save_model(folder.path, test::small_config(), test::small_model().weights());
  write_file_atomic(folder.path / "model.safetensors",
                    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  EXPECT_THAT(error_of(folder.path), AllOf(HasSubstr("model.safetensors"), HasSubstr("git lfs")));
  write_file_atomic(folder.path / "config.json", "<!DOCTYPE html><html></html>");
  EXPECT_THAT(error_of(folder.path), AllOf(HasSubstr("config.json"), HasSubstr("web page")));
}

// A model in two files, with an index.
void save_sharded(const std::filesystem::path& folder, const Decoder& model) {
  ModelWeights weights = model.weights();
  std::vector<io::NamedTensor> shards[2];
  nlohmann::json map;
  for (const auto& [name, tensor] : named_weights(weights)) {
    const size_t shard = map.size() % 2;
    shards[shard].push_back(tensor_record(name, *tensor));
    map[name] = message("part", shard, ".safetensors");
  }
  for (size_t i = 0; i < 2; ++i) {
    io::write_safetensors(folder / message("part", i, ".safetensors"), shards[i]);
  }
  write_file_atomic(folder / "model.safetensors.index.json",
                    nlohmann::json{{"weight_map", map}}.dump());
  write_file_atomic(folder / "config.json", test::small_config().dump());
}

TEST(Fingerprint, IsThatOfTheFilesWhateverTheirForm) {
  const test::TemporaryFolder one, two, wide;
  const Decoder model = test::small_model();
  save_model(one.path, test::small_config(), model.weights());
  save_sharded(two.path, model);
  const std::string fingerprint = load(one.path).origin().fingerprint;
  EXPECT_EQ(load(two.path).origin().fingerprint, fingerprint);
  EXPECT_EQ(load(one.path, at::kBFloat16).origin().fingerprint, fingerprint);
  EXPECT_EQ(model.origin().fingerprint, fingerprint);

  // One value of one of the small weights.
  const Decoder other = test::small_model();
  const at::Tensor norm = other.weights().norm;
  norm.view({-1})[3].add_(1);
  EXPECT_NE(other.origin().fingerprint, fingerprint);
}

TEST(Fingerprint, Values) {
  const auto of = [](const at::Tensor& head) {
    Fingerprint fingerprint;
    fingerprint.add("model.embed_tokens.weight", at::arange(0, 5000, at::kFloat).view({50, 100}));
    fingerprint.add("model.norm.weight", at::tensor({1.5f, -2.0f}).to(at::kBFloat16));
    if (head.defined()) fingerprint.add("lm_head.weight", head);
    return fingerprint.text();
  };
  // By tools/convert_gates.py.
  EXPECT_EQ(of({}), "seer-1:0c8e853df6535a9c");
  EXPECT_EQ(of(at::arange(0, 5000, at::kFloat)), of({})) << "a stored head that is tied";
  EXPECT_EQ(of(at::arange(0, 5000, at::kFloat).add(1)), "seer-1:84da27bcf6615694");
}

TEST(Fingerprint, NamesOfHubFolders) {
  const test::TemporaryFolder folder;
  const auto path = folder.path / "models--Some-Org--A-Model" / "snapshots" / "0a1b";
  save_model(path, test::small_config(), test::small_model().weights());
  EXPECT_EQ(load(path).origin().name, "Some-Org/A-Model");
}

TEST(Load, TruncatedFile) {
  const test::TemporaryFolder folder;
  save_model(folder.path, test::small_config(), test::small_model().weights());
  const auto path = folder.path / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 100);
  EXPECT_THAT(error_of(folder.path), HasSubstr(path.string()));
}

}  // namespace
}  // namespace seer::models
