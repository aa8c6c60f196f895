#include "seer/io/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "seer/base/error.h"
#include "seer/base/file.h"

namespace seer::io {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json sizes(const std::string& type, const std::string& architecture) {
  return {{"model_type", type},     {"architectures", {architecture}},
          {"hidden_size", 64},      {"intermediate_size", 112},
          {"num_hidden_layers", 4}, {"num_attention_heads", 32},
          {"vocab_size", 100}};
}
json llama() {
  return sizes("llama", "LlamaForCausalLM");
}

ModelConfig parse(const json& j) {
  return ModelConfig::from_json(j, "dir/config.json");
}
ModelConfig parse(json j, const json& changes) {
  j.update(changes);
  return parse(j);
}

// The message of the error that parsing gives, one line.
std::string error_of(const json& j) {
  try {
    parse(j);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}
std::string error_of(json j, const json& changes) {
  j.update(changes);
  return error_of(j);
}

TEST(ModelConfig, FamilyDefaultsOfTransformers) {
  struct {
    const char *type, *architecture;
    int num_kv_heads, head_dim;
    int64_t max_position;
    double eps;
    int64_t window;
    bool qkv_bias, qk_norm, fused;
    std::vector<int64_t> eos;
  } const cases[] = {
      {"llama", "LlamaForCausalLM", 32, 2, 2048, 1e-6, 0, false, false, false, {2}},
      {"mistral", "MistralForCausalLM", 8, 2, 131072, 1e-6, 4096, false, false, false, {2}},
      {"qwen2", "Qwen2ForCausalLM", 32, 2, 32768, 1e-6, 0, true, false, false, {}},
      {"qwen3", "Qwen3ForCausalLM", 32, 128, 32768, 1e-6, 0, false, true, false, {}},
      {"phi3", "Phi3ForCausalLM", 32, 2, 4096, 1e-5, 0, false, false, true, {32000}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.type);
    const ModelConfig config = parse(sizes(c.type, c.architecture));
    EXPECT_EQ(config.model_type, c.type);
    EXPECT_EQ(config.num_kv_heads, c.num_kv_heads);
    EXPECT_EQ(config.head_dim, c.head_dim);
    EXPECT_EQ(config.max_position, c.max_position);
    EXPECT_EQ(config.rms_norm_eps, c.eps);
    EXPECT_EQ(config.sliding_window, std::vector<int64_t>(4, c.window));
    EXPECT_EQ(config.qkv_bias, c.qkv_bias);
    EXPECT_EQ(config.qk_norm, c.qk_norm);
    EXPECT_EQ(config.fused_weights, c.fused);
    EXPECT_EQ(config.eos_ids, c.eos);
    EXPECT_FALSE(config.out_bias || config.mlp_bias || config.tied_embeddings);
    EXPECT_EQ(config.rope.type, "default");
    EXPECT_EQ(config.rope.theta, 10000);
    EXPECT_EQ(config.rope.rotary_dim, c.head_dim);
    EXPECT_EQ(config.dtype, "");
  }
}

TEST(ModelConfig, ArchitectureWithoutModelType) {
  json j = llama();
  j.erase("model_type");
  EXPECT_EQ(parse(j).model_type, "llama");
  j = llama();
  j.erase("architectures");
  EXPECT_EQ(parse(j).model_type, "llama");
}

TEST(ModelConfig, UnsupportedArchitectureIsNamedWithTheList) {
  for (const auto& j : {sizes("gemma2", "Gemma2ForCausalLM"), sizes("llama", "LlamaForTokens"),
                        sizes("qwen2", "LlamaForCausalLM")}) {
    EXPECT_THAT(error_of(j), AllOf(HasSubstr("dir/config.json"),
                                   HasSubstr(j["architectures"][0].get<std::string>()),
                                   HasSubstr("LlamaForCausalLM"), HasSubstr("Phi3ForCausalLM")));
  }
  EXPECT_THAT(error_of(json::object()), HasSubstr("unsupported architecture"));
}

TEST(ModelConfig, ArchitecturesInOtherForms) {
  for (const json& list : {json::array(), json(nullptr), json{"LLaMAForCausalLM"}}) {
    EXPECT_EQ(parse(llama(), {{"architectures", list}}).model_type, "llama") << list;
  }
  const json nested = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                       {"model_type", "llama"},
                       {"text_config", llama()}};
  EXPECT_THAT(error_of(nested), AllOf(HasSubstr("Gemma3"), HasSubstr("text_config")));
}

TEST(ModelConfig, WholeNumbersWrittenAsFloats) {
  const ModelConfig config = parse(llama(), {{"hidden_size", 128.0}, {"num_hidden_layers", 2.0}});
  EXPECT_EQ(config.hidden_size, 128);
  EXPECT_EQ(config.num_layers, 2);
}

TEST(ModelConfig, Biases) {
  const ModelConfig config = parse(llama(), {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(config.qkv_bias && config.out_bias && config.mlp_bias);
  const ModelConfig qwen3 = parse(sizes("qwen3", "Qwen3ForCausalLM"), {{"attention_bias", true}});
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.out_bias && !qwen3.mlp_bias);
}

TEST(ModelConfig, SlidingWindows) {
  const json mistral = sizes("mistral", "MistralForCausalLM");
  EXPECT_EQ(parse(mistral, {{"sliding_window", nullptr}}).sliding_window,
            std::vector<int64_t>(4, 0));
  EXPECT_EQ(parse(mistral, {{"sliding_window", 77}}).sliding_window, std::vector<int64_t>(4, 77));
  EXPECT_EQ(parse(sizes("phi3", "Phi3ForCausalLM"), {{"sliding_window", 5}}).sliding_window,
            std::vector<int64_t>(4, 5));
  EXPECT_EQ(parse(llama(), {{"sliding_window", 5}}).sliding_window, std::vector<int64_t>(4, 0));
  for (const auto& [type, architecture] :
       {std::pair("qwen2", "Qwen2ForCausalLM"), std::pair("qwen3", "Qwen3ForCausalLM")}) {
    const json qwen = sizes(type, architecture);
    EXPECT_EQ(parse(qwen, {{"sliding_window", 9}, {"max_window_layers", 0}}).sliding_window,
              std::vector<int64_t>(4, 0));
    const json on = {{"sliding_window", 9}, {"use_sliding_window", true}};
    EXPECT_EQ(parse(qwen, on).sliding_window, std::vector<int64_t>(4, 0)) << "from layer 28 on";
    json from_three = on;
    from_three["max_window_layers"] = 3;
    EXPECT_EQ(parse(qwen, from_three).sliding_window, (std::vector<int64_t>{0, 0, 0, 9}));
    json listed = on;
    listed["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention",
                             "full_attention"};
    EXPECT_EQ(parse(qwen, listed).sliding_window, (std::vector<int64_t>{9, 0, 9, 0}));
    listed["layer_types"] = {"sliding_attention"};
    EXPECT_THAT(error_of(qwen, listed), HasSubstr("layer_types"));
  }
}

TEST(ModelConfig, RopeSpellings) {
  const json inner = {{"factor", 8.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 64}};
  json old_form = inner, new_form = inner, newest = inner;
  old_form["type"] = new_form["rope_type"] = newest["rope_type"] = "llama3";
  newest["rope_theta"] = 7.0;
  newest["partial_rotary_factor"] = 1.0;
  for (const json& changes :
       {json{{"rope_scaling", old_form}, {"rope_theta", 7.0}},
        json{{"rope_scaling", new_form}, {"rope_theta", 7.0}}, json{{"rope_parameters", newest}}}) {
    const RopeConfig rope = parse(llama(), changes).rope;
    EXPECT_EQ(rope.type, "llama3");
    EXPECT_EQ(rope.theta, 7);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.low_freq_factor, 1);
    EXPECT_EQ(rope.high_freq_factor, 4);
    EXPECT_EQ(rope.original_max_position, 64);
    EXPECT_EQ(rope.max_position, 2048);
  }
}

TEST(ModelConfig, RopePrecedenceOfTransformers) {
  const json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  RopeConfig rope = parse(llama(), {{"rope_scaling", yarn},
                                    {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}}},
                                    {"original_max_position_embeddings", 64}})
                        .rope;
  EXPECT_EQ(rope.type, "yarn");
  EXPECT_EQ(rope.original_max_position, 64);
  rope = parse(llama(), {{"rope_scaling", json::object()},
                         {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}}}})
             .rope;
  EXPECT_EQ(rope.type, "linear");
  json llama3 = {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}};
  llama3["high_freq_factor"] = 4;
  EXPECT_EQ(parse(llama(), {{"rope_scaling", llama3}}).rope.original_max_position, 2048);
}

TEST(ModelConfig, PhiLongropeAndPartialRotation) {
  json phi = sizes("phi3", "Phi3ForCausalLM");
  phi["num_attention_heads"] = 4;  // head_dim 16
  const json factors = {1.0, 1.5, 2.0, 2.5, 3.0, 3.5};
  phi["partial_rotary_factor"] = 0.75;
  for (const char* type : {"longrope", "su", "yarn"}) {
    phi["rope_scaling"] = {{"type", type}, {"short_factor", factors}, {"long_factor", factors}};
    const RopeConfig rope = parse(phi).rope;
    EXPECT_EQ(rope.type, "longrope");
    EXPECT_EQ(rope.rotary_dim, 12);
    EXPECT_EQ(rope.original_max_position, 4096);
    EXPECT_EQ(rope.long_factor[5], 3.5);
  }
  EXPECT_EQ(parse(phi, {{"original_max_position_embeddings", 99}}).rope.original_max_position, 99);
  EXPECT_THAT(error_of(phi, {{"partial_rotary_factor", 0.5}}), HasSubstr("dir/config.json"));
}

TEST(ModelConfig, WrongRopeIsNamedWithTheList) {
  EXPECT_THAT(error_of(llama(), {{"rope_scaling", {{"type", "ntk"}, {"factor", 2.0}}}}),
              AllOf(HasSubstr("\"ntk\""), HasSubstr("llama3"), HasSubstr("longrope")));
  EXPECT_THAT(error_of(llama(), {{"rope_scaling", {{"type", "linear"}}}}),
              AllOf(HasSubstr("dir/config.json"), HasSubstr("factor")));
  EXPECT_THAT(error_of(llama(), {{"rope_scaling", "linear"}}), HasSubstr("rope_scaling"));
  EXPECT_THAT(error_of(llama(), {{"partial_rotary_factor", 0.5}}), HasSubstr("whole heads"));
  EXPECT_THAT(error_of(llama(), {{"rope_parameters", {{"full_attention", {{"rope_theta", 7}}}}}}),
              HasSubstr("one set for all layers"));
}

TEST(ModelConfig, EndOfText) {
  EXPECT_EQ(parse(llama(), {{"eos_token_id", 7}}).eos_ids, std::vector<int64_t>{7});
  EXPECT_EQ(parse(llama(), {{"eos_token_id", {7, 9}}}).eos_ids, (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(parse(llama(), {{"eos_token_id", nullptr}}).eos_ids, std::vector<int64_t>{});
  EXPECT_THAT(error_of(llama(), {{"eos_token_id", "x"}}), HasSubstr("eos_token_id"));
  EXPECT_THAT(error_of(llama(), {{"eos_token_id", {7, 2.5}}}), HasSubstr("eos_token_id"));
  EXPECT_EQ(parse(llama(), {{"eos_token_id", {7.0, -1}}}).eos_ids, std::vector<int64_t>{7});
  EXPECT_EQ(parse(llama()).bos_id, 1);
  EXPECT_EQ(parse(llama(), {{"bos_token_id", nullptr}}).bos_id, -1);
  EXPECT_EQ(parse(llama(), {{"bos_token_id", -1}}).bos_id, -1);
}

TEST(ModelConfig, Types) {
  EXPECT_EQ(parse(llama(), {{"torch_dtype", "bfloat16"}}).dtype, "bf16");
  EXPECT_EQ(parse(llama(), {{"dtype", "float16"}}).dtype, "f16");
  for (const char* name : {"torch.bfloat16", "bf16", "bfloat16"}) {
    EXPECT_EQ(parse(llama(), {{"torch_dtype", name}}).dtype, "bf16") << name;
  }
  for (const char* name : {"float32", "float", "torch.float32", "double"}) {
    EXPECT_EQ(parse(llama(), {{"dtype", name}}).dtype, "f32") << name;
  }
  EXPECT_EQ(parse(llama(), {{"dtype", nullptr}, {"torch_dtype", "half"}}).dtype, "f16");
  EXPECT_EQ(parse(llama(), {{"dtype", "auto"}}).dtype, "");
  EXPECT_THAT(error_of(llama(), {{"torch_dtype", "float8"}}), HasSubstr("float8"));
}

TEST(ModelConfig, ImpossibleFilesGiveOneLineThatNamesTheFile) {
  const std::pair<json, const char*> cases[] = {
      {{{"num_attention_heads", 5}}, "not a multiple of num_attention_heads 5"},
      {{{"num_key_value_heads", 3}}, "not a multiple of num_key_value_heads 3"},
      {{{"num_key_value_heads", 0}}, "num_key_value_heads"},
      {{{"hidden_size", -64}}, "hidden_size"},
      {{{"hidden_size", 64.5}}, "64.5"},
      {{{"hidden_size", "64"}}, "hidden_size"},
      {{{"hidden_size", nullptr}}, "hidden_size"},
      {{{"hidden_size", 18446744073709551615u}}, "hidden_size"},
      {{{"vocab_size", 1e300}}, "vocab_size"},
      {{{"num_hidden_layers", 1000000000}}, "num_hidden_layers"},
      {{{"head_dim", 3}}, "rotary width"},
      {{{"hidden_act", "gelu"}}, "gelu"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantized"},
      {{{"rms_norm_eps", "x"}}, "rms_norm_eps"},
      {{{"tie_word_embeddings", 1}}, "tie_word_embeddings"},
      {{{"architectures", "x"}}, "architectures"},
  };
  for (const auto& [changes, words] : cases) {
    EXPECT_THAT(error_of(llama(), changes), AllOf(HasSubstr("dir/config.json"), HasSubstr(words)))
        << changes;
  }
  json without = llama();
  without.erase("hidden_size");
  EXPECT_THAT(error_of(without), HasSubstr("missing"));
}

TEST(ModelConfig, ReadsAFolder) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "model_config_test";
  std::filesystem::remove_all(folder);
  EXPECT_THROW(ModelConfig::read(folder), Error);
  std::filesystem::create_directories(folder);
  EXPECT_THROW(ModelConfig::read(folder), Error);
  write_file_atomic(folder / "config.json", "{\"hidden_size\": ");
  EXPECT_THROW(ModelConfig::read(folder), Error);
  write_file_atomic(folder / "config.json", llama().dump());
  EXPECT_EQ(ModelConfig::read(folder).eos_ids, std::vector<int64_t>{2});
  write_file_atomic(folder / "generation_config.json", "{\"eos_token_id\": [3, 4]}");
  EXPECT_EQ(ModelConfig::read(folder).eos_ids, (std::vector<int64_t>{3, 4}));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace seer::io
