#include "seer/io/gate_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "seer/base/error.h"
#include "seer/base/file.h"

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
  EXPECT_EQ(gate_weight_name(3, 'k'), "model.layers.3.self_attn.attn_gate.mask_linear_k.weight");
  EXPECT_EQ(gate_weight_name(0, 'q'), "model.layers.0.self_attn.attn_gate.mask_linear_q.weight");
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
