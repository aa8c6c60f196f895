#include "seer/io/gate_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/io/model_config.h"

namespace seer::io {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class GateFile : public testing::Test {
 protected:
  GateFile() : folder_(std::filesystem::path(testing::TempDir()) / "gate_file_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~GateFile() override { std::filesystem::remove_all(folder_); }
  std::string error_of(const std::string& config) {
    write_file_atomic(folder_ / "config.json", config);
    try {
      read_gate_config(folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::filesystem::path folder_;
};

TEST(GateConfig, Poolings) {
  GateConfig config;
  EXPECT_EQ(config.q_pools(), 4);
  EXPECT_EQ(config.k_pools(), 7);
  config.type = "Qmaxmin_Kmin";
  EXPECT_EQ(config.q_pools(), 3);
  EXPECT_EQ(config.k_pools(), 2);
  EXPECT_EQ(GateConfig::count(7), 3);
  EXPECT_EQ(GateConfig::count(4), 1);
  for (const char* type : {"", "Q_K", "Qavg_K", "Q_Kavg", "Qavg", "Qavgmax_Kavg", "Qavg_Kminmax",
                           "Qmaxmax_Kavg", "avg_Kavg", "Qavg_Kavgx", "qavg_Kavg", "_Kavg"}) {
    config.type = type;
    EXPECT_THROW(config.q_pools(), Error) << type;
    EXPECT_THROW(config.check(64), Error) << type;
  }
}

TEST(GateConfig, Form) {
  GateConfig config;
  EXPECT_FALSE(config.is_double(128));
  config.gate_dim = 128;
  EXPECT_FALSE(config.is_double(128));
  EXPECT_TRUE(config.is_double(64));
  config.gate_dim = 0;
  config.force_double = true;
  EXPECT_TRUE(config.is_double(128));
  config.force_double = false;
  config.type = "Qmaxmin_Kavg";
  EXPECT_TRUE(config.is_double(128));
}

TEST(GateConfig, Ranges) {
  const auto throws = [](const std::function<void(GateConfig&)>& change) {
    GateConfig config;
    change(config);
    EXPECT_THROW(config.check(64), Error);
  };
  EXPECT_NO_THROW(GateConfig{}.check(64));
  for (const int block : {0, -16, 8, 24, 144, 1 << 20}) {
    throws([&](GateConfig& c) { c.block_size = block; });
  }
  for (const int size : {-2, 33, 2048}) throws([&](GateConfig& c) { c.gate_dim = size; });
}

TEST(GateNames, AsPublished) {
  EXPECT_EQ(gate_weight_name(3, "mask_linear_k"),
            "model.layers.3.self_attn.attn_gate.mask_linear_k.weight");
  EXPECT_EQ(gate_weight_name(0, "lookup_q"), "model.layers.0.self_attn.attn_gate.lookup_q.weight");
}

TEST_F(GateFile, ANameThatIsNotUtf8IsWritten) {
  GateConfig config;
  config.base_model = "caf\xE9";  // a path
  write_gate_config(folder_, nlohmann::json::object(), config);
  EXPECT_EQ(read_gate_config(folder_).base_model, "caf\xEF\xBF\xBD");
}

TEST_F(GateFile, RoundTripKeepsTheModelsKeys) {
  GateConfig config;
  config.base_model = "some/model";
  config.fingerprint = "seer-1:0123456789abcdef";
  config.type = "Qmaxavg_Kmin";
  config.block_size = 32;
  config.gate_dim = 96;
  config.force_double = true;
  write_gate_config(folder_, {{"hidden_size", 64}, {"model_type", "llama"}}, config);
  const GateConfig read = read_gate_config(folder_);
  EXPECT_EQ(read.base_model, config.base_model);
  EXPECT_EQ(read.fingerprint, config.fingerprint);
  EXPECT_EQ(read.type, config.type);
  EXPECT_EQ(read.block_size, 32);
  EXPECT_EQ(read.gate_dim, 96);
  EXPECT_TRUE(read.force_double);
  const auto json = nlohmann::json::parse(read_file(folder_ / "config.json"));
  EXPECT_EQ(json["hidden_size"], 64);
  EXPECT_EQ(json["seerattn_gate_hidden_size"], 96);
}

TEST(GateConfig, LookupHeads) {
  const auto error = [](int rank, std::vector<std::vector<int>> heads, int head_dim = 64) {
    GateConfig config;
    config.lookup_rank = rank;
    config.lookup_heads = std::move(heads);
    ModelConfig model;
    model.head_dim = head_dim;
    model.num_layers = 3;
    model.num_heads = 4;
    try {
      config.check(model);
    } catch (const Error& wrong) {
      return std::string(wrong.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error(0, {}), "no error");
  EXPECT_EQ(error(0, {{}, {}, {}}), "no error");
  EXPECT_EQ(error(32, {{}, {0, 1, 2, 3}, {3}}), "no error");
  EXPECT_EQ(error(64, {{0}}), "no error");
  EXPECT_THAT(error(0, {{1}}),
              AllOf(HasSubstr("seer_lookup_rank is missing"), HasSubstr("16, 32 or 64")));
  EXPECT_THAT(error(48, {{1}}), AllOf(HasSubstr("is 48"), HasSubstr("16, 32 or 64")));
  EXPECT_THAT(error(64, {{1}}, 32), AllOf(HasSubstr("is 64"), HasSubstr("head size 32")));
  EXPECT_THAT(error(32, {{}, {}}), AllOf(HasSubstr("rank 32"), HasSubstr("seer_lookup_heads")));
  EXPECT_THAT(error(32, {{}, {2, 1}}),
              AllOf(HasSubstr("layer 1"), HasSubstr("1 comes after 2"), HasSubstr("ascending")));
  EXPECT_THAT(error(32, {{2, 2}}), HasSubstr("2 comes after 2"));
  EXPECT_THAT(error(32, {{-1, 2}}), HasSubstr("head -1"));
  EXPECT_THAT(error(32, {{}, {1, 4}}),
              AllOf(HasSubstr("layer 1"), HasSubstr("head 4"), HasSubstr("4 heads")));
  EXPECT_THAT(error(32, {{}, {}, {}, {1}}), AllOf(HasSubstr("layer 3"), HasSubstr("3 layers")));
}

TEST_F(GateFile, LookupHeadsRoundTrip) {
  GateConfig config;
  const auto written = [&] {
    write_gate_config(folder_, {{"hidden_size", 64}}, config);
    return read_file(folder_ / "config.json");
  };
  const std::string without = written();
  EXPECT_THAT(without, testing::Not(HasSubstr("lookup")));
  config.lookup_heads.resize(3);
  EXPECT_EQ(written(), without) << "layers, none with such heads";

  config.lookup_rank = 32;
  config.lookup_heads = {{}, {0, 5}, {}, {2}, {}};
  const auto json = nlohmann::json::parse(written());
  EXPECT_EQ(json["seer_lookup_rank"], 32);
  EXPECT_EQ(json["seer_lookup_heads"], nlohmann::json::parse(R"({"1": [0, 5], "3": [2]})"));
  const GateConfig read = read_gate_config(folder_);
  EXPECT_EQ(read.lookup_rank, 32);
  EXPECT_EQ(read.lookup_heads, (std::vector<std::vector<int>>{{}, {0, 5}, {}, {2}}));
  config.lookup_heads = {{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {1}, {1}};
  written();
  EXPECT_EQ(read_gate_config(folder_).lookup_heads, config.lookup_heads) << "10 after 9";
}

TEST_F(GateFile, WrongLookupHeadsNameFileAndPlace) {
  const auto error = [&](const std::string& rank, const std::string& heads) {
    std::string text = R"({"seerattn_gate_type": "Qavg_Kavg")";
    if (!rank.empty()) text += ", \"seer_lookup_rank\": " + rank;
    if (!heads.empty()) text += ", \"seer_lookup_heads\": " + heads;
    const std::string found = error_of(text + "}");
    EXPECT_EQ(found.find('\n'), found.npos);
    if (found != "no error") EXPECT_THAT(found, HasSubstr((folder_ / "config.json").string()));
    return found;
  };
  EXPECT_EQ(error("16", R"({"0": [0], "11": [3, 4]})"), "no error");
  EXPECT_EQ(error("null", "null"), "no error");
  EXPECT_THAT(error("", R"({"0": [0]})"), HasSubstr("seer_lookup_rank"));
  EXPECT_THAT(error("32", ""), HasSubstr("seer_lookup_heads"));
  EXPECT_THAT(error("\"32\"", R"({"0": [0]})"), HasSubstr("seer_lookup_rank"));
  EXPECT_THAT(error("24", R"({"0": [0]})"), HasSubstr("16, 32 or 64"));
  for (const char* heads : {"{}", "[[0]]", "3"}) {
    EXPECT_THAT(error("32", heads), HasSubstr("seer_lookup_heads")) << heads;
  }
  for (const char* key :
       {"", "x", "-1", "+1", "01", "1.0", " 1", "65536", "99999999999999999999"}) {
    EXPECT_THAT(error("32", message("{\"", key, "\": [0]}")),
                AllOf(HasSubstr(message("\"", key, "\"")), HasSubstr("number of a layer")));
  }
  for (const char* list : {"[]", "0", "[-1]", "[0.5]", "[\"0\"]", "[1e9]", "null"}) {
    EXPECT_THAT(error("32", message("{\"7\": ", list, "}")), HasSubstr("seer_lookup_heads.7"))
        << list;
  }
  EXPECT_THAT(error("32", R"({"7": [3, 3]})"), HasSubstr("layer 7"));
}

TEST_F(GateFile, WrongFilesGiveErrorsThatNameTheFile) {
  const std::string path = (folder_ / "config.json").string();
  EXPECT_THAT(error_of("{"), HasSubstr(path));
  EXPECT_THAT(error_of("{}"), AllOf(HasSubstr(path), HasSubstr("seerattn_gate_type")));
  EXPECT_THAT(error_of(R"({"seerattn_gate_type": "Qsum_Kavg"})"),
              AllOf(HasSubstr(path), HasSubstr("Qsum_Kavg")));
  EXPECT_THAT(error_of(R"({"seerattn_gate_type": "Qavg_Kavg", "seerattn_gate_block_size": 63})"),
              AllOf(HasSubstr(path), HasSubstr("63")));
  EXPECT_THAT(error_of(R"({"seerattn_gate_type": "Qavg_Kavg", "seerattn_gate_block_size": "x"})"),
              AllOf(HasSubstr(path), HasSubstr("seerattn_gate_block_size")));
  EXPECT_THAT(error_of(R"({"seerattn_k_seq_pooling_type": "Kmaxminavg"})"), HasSubstr("decoding"));
}

TEST_F(GateFile, PickleNamesTheCommandThatConvertsIt) {
  write_file_atomic(folder_ / "attn_gate_weights.pth", "x");
  EXPECT_THAT(error_of(R"({"seerattn_gate_type": "Qavg_Kavg"})"),
              AllOf(HasSubstr("attn_gate_weights.pth"), HasSubstr("tools/convert_gates.py")));
  write_file_atomic(gate_weights_path(folder_), "x");
  EXPECT_EQ(error_of(R"({"seerattn_gate_type": "Qavg_Kavg"})"), "no error");
}

TEST_F(GateFile, MissingFolder) {
  EXPECT_THROW(read_gate_config(folder_ / "nothing"), Error);
}

}  // namespace
}  // namespace seer::io
