#include "seer/train/tasks/finetune.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/interrupt.h"
#include "seer/models/loader.h"
#include "seer/models/testing/test_model.h"
#include "seer/train/tasks/finetune_memory.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

constexpr int kGateBlock = 16;

nlohmann::json test_config(int64_t context = 64) {
  auto config = models::test::small_config();
  config["vocab_size"] = 8192;
  config["max_position_embeddings"] = context;
  return config;
}

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
  settings.gate.block_size = kGateBlock;
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
    EXPECT_EQ(models::Gates::load(folder / attention / "gates", model).config().block_size,
              kGateBlock);
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

TEST_F(Finetune, StatesOnTheHostChangeNothing) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const std::string name = c10::toString(dtype);
    FinetuneSettings here = finetune_settings(folder, name),
                     there = finetune_settings(folder, name + " on the host");
    here.loop.steps = there.loop.steps = 5;
    here.dtype = there.dtype = dtype;
    there.loop.states_on_host = true;
    finetune(here);
    finetune(there);
    EXPECT_EQ(metrics_of(here.loop.out), metrics_of(there.loop.out));
    for (const char* file :
         {"model.safetensors", "gates/attn_gate_weights.safetensors", "run.json"}) {
      EXPECT_EQ(read_file(here.loop.out / file), read_file(there.loop.out / file)) << file;
    }
  }
}

TEST_F(Finetune, MuonTrainsTheMatricesOfTheLayers) {
  FinetuneSettings run = finetune_settings(folder, "muon");
  run.optimizer = "muon";
  run.matrix_learning_rate = 0.02;
  const RunResult result = finetune(run);
  const auto lines = metrics_of(folder / "muon");
  EXPECT_LT(result.loss, lines[0]["loss"].get<double>() - 1);
  EXPECT_DOUBLE_EQ(lines[0]["lr_matrices"].get<double>(), 0.02 / 3);
  EXPECT_DOUBLE_EQ(lines[0]["lr_others"].get<double>(), 1e-2 / 3);
  EXPECT_DOUBLE_EQ(lines[0]["lr_gates"].get<double>(), 2e-2 / 3);
}

TEST_F(Finetune, MuonTakesOneMomentLessOfMatricesAlone) {
  for (const bool tied : {true, false}) {
    FinetuneSettings s = finetune_settings(folder, "plan");
    io::ModelConfig model = io::ModelConfig::read(s.model);
    model.tied_embeddings = tied;
    const double adamw = finetune_plan(model, s).trained;
    s.optimizer = "muon";
    const double hidden = model.hidden_size,
                 q_and_kv = double(model.head_dim) * (model.num_heads + model.num_kv_heads);
    const double matrices =
        model.num_layers * (2 * hidden * q_and_kv + 3 * hidden * model.intermediate_size);
    EXPECT_DOUBLE_EQ(adamw - finetune_plan(model, s).trained, 4 * matrices) << tied;
  }
}

// The address space may not grow by much while this lives.
class LittleMemory {
 public:
  explicit LittleMemory(rlim_t more) {
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    ::getrlimit(RLIMIT_AS, &before_);
    const rlimit limit{pages * static_cast<rlim_t>(::getpagesize()) + more, before_.rlim_max};
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ~LittleMemory() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

TEST_F(Finetune, WhereMemoryIsFullTheErrorSaysWhatToLower) {
  FinetuneSettings run = finetune_settings(folder, "a");
  run.data.valid.clear();
  run.yarn_factor = 64;
  run.length = 4000;
  run.micro_batch = 400;
  run.sequences = 400;
  const LittleMemory little(600 << 20);
  const std::string error = error_of(run);
  EXPECT_THAT(error, HasSubstr("the host's memory is full ("));
  EXPECT_THAT(error, HasSubstr("choose a smaller --length or --micro-batch"));
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

TEST_F(Finetune, AModelWhoseGatesCannotBeWrittenIsNone) {
  FinetuneSettings run = finetune_settings(folder, "a");
  run.loop.steps = 1;
  finetune(run);
  const std::string gates = read_file(run.loop.out / "gates" / "attn_gate_weights.safetensors");
  std::filesystem::remove_all(run.loop.out / "gates");
  write_file_atomic(run.loop.out / "gates", "a file");
  EXPECT_THROW(finetune(run), std::exception);
  EXPECT_FALSE(std::filesystem::exists(run.loop.out / "config.json"));
  std::filesystem::remove(run.loop.out / "gates");
  finetune(run);
  EXPECT_EQ(read_file(run.loop.out / "gates" / "attn_gate_weights.safetensors"), gates);
  EXPECT_TRUE(std::filesystem::exists(run.loop.out / "config.json"));
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

TEST_F(Finetune, StoppedAfterTheLastStepSavesTheModel) {
  FinetuneSettings run = finetune_settings(folder, "stopped");
  run.loop.steps = 1;
  StopsAfterRun first(1);
  run.loop.ranks = &first;
  EXPECT_THROW(finetune(run), Interrupted);
  EXPECT_TRUE(std::filesystem::exists(folder / "stopped" / "model.safetensors"));
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
