#include "seer/train/loop/checkpoint.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "seer/io/safetensors.h"
#include "seer/train/testing/loop_fixture.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Checkpoints : public LoopTest {
 protected:
  // Damages what lies there, then goes on: "" where the run ends as `whole_` did.
  std::string after(const std::string& name,
                    const std::function<void(const fs::path& newest)>& damage) {
    QuadraticTask first, second;
    run(first, settings(name));
    damage(folder / name / "checkpoints" / "step-00000040.safetensors");
    const std::string error = error_of(second, settings(name));
    if (!error.empty()) return error;
    EXPECT_EQ(metrics_of(folder / name), metrics_of(folder / "whole")) << name;
    return same_bits(first, second) ? "" : "other bits";
  }
  // The newest checkpoint, written anew.
  void change(const fs::path& path,
              const std::function<void(NamedTensors&, std::string& run, RunState&)>& how) {
    std::string run;
    NamedTensors tensors;
    {
      const io::SafetensorsFile file(path);
      run = file.metadata().at("run");
      for (const auto& [name, record] : file.tensors()) {
        tensors.emplace_back(name, at::empty(record.shape, at::kFloat));
      }
    }
    RunState state;
    ASSERT_EQ(read_checkpoint(path, run, 40, tensors, &state), "");
    how(tensors, run, state);
    write_checkpoint(path, run, tensors, state);
  }
};

TEST_F(Checkpoints, ADamagedNewestIsReportedAndTheOneBeforeIsUsed) {
  QuadraticTask whole;
  run(whole, settings("whole"));
  EXPECT_EQ(after("empty", [](const fs::path& path) { fs::resize_file(path, 0); }), "");
  EXPECT_EQ(
      after("cut", [](const fs::path& path) { fs::resize_file(path, fs::file_size(path) - 1); }),
      "");
  EXPECT_EQ(after("flipped",
                  [](const fs::path& path) {
                    std::string bytes = read_file(path);
                    bytes[bytes.size() - 3] ^= 4;
                    write_file_atomic(path, bytes);
                  }),
            "");
  EXPECT_EQ(after("other run",
                  [&](const fs::path& path) {
                    change(path, [](NamedTensors&, std::string& run, RunState&) { run = "x"; });
                  }),
            "");
  for (const int64_t step : {int64_t{39}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    EXPECT_EQ(after("step " + std::to_string(step),
                    [&](const fs::path& path) {
                      change(path, [&](NamedTensors&, std::string&, RunState& state) {
                        state.step = step;
                      });
                    }),
              "");
  }
}

TEST_F(Checkpoints, StepsBeyondTheRunAndWithoutANumberAreNotTaken) {
  QuadraticTask whole;
  run(whole, settings("whole"));
  for (const char* name : {"step-00000041.safetensors", "step--9223372036854775808.safetensors",
                           "step-x.safetensors", "step-99999999999999999999.safetensors"}) {
    EXPECT_EQ(
        after(name, [&](const fs::path& path) { fs::rename(path, path.parent_path() / name); }),
        "");
    EXPECT_FALSE(fs::exists(folder / name / "checkpoints" / name));
  }
}

TEST_F(Checkpoints, NaNIsNeitherWrittenNorRead) {
  QuadraticTask task;
  run(task, settings("a"));
  const fs::path path = folder / "a" / "checkpoints" / "step-00000040.safetensors";
  const std::string before = read_file(path);
  const float infinite = std::numeric_limits<float>::infinity();
  EXPECT_THROW(change(path, [&](NamedTensors& tensors, std::string&,
                                RunState&) { tensors[0].second.fill_(infinite); }),
               Error);
  EXPECT_EQ(read_file(path), before);
  // As a program that does not look would have written it.
  const at::Tensor nan = at::full({2}, std::nanf(""));
  io::write_safetensors(
      path, {{"a", {"F32", {2}, static_cast<const std::byte*>(nan.data_ptr()), 8}}},
      {{"run", "r"}, {"state", R"({"step": 40, "tokens": 1, "skipped": 0, "skipped_in_row": 0,
                                       "loss": 1, "seconds": 1, "valid": {}, "validation_due": false})"}},
      /*with_checksum=*/true);
  RunState state;
  EXPECT_THAT(read_checkpoint(path, "r", 40, {{"a", at::zeros({2})}}, &state), HasSubstr("NaN"));
  EXPECT_THAT(read_checkpoint(path, "r", 41, {{"a", at::zeros({2})}}, &state),
              HasSubstr("it is of step 40"));
  EXPECT_THAT(read_checkpoint(path, "s", 40, {{"a", at::zeros({2})}}, &state),
              HasSubstr("another run"));
  EXPECT_THAT(read_checkpoint(path, "r", 40, {{"a", at::zeros({3})}}, &state),
              HasSubstr("want F32 [3]"));
}

TEST_F(Checkpoints, WhereNoneIsWholeTheErrorSaysWhatToDo) {
  const std::string error = after("a", [](const fs::path& path) {
    for (const auto& entry : fs::directory_iterator(path.parent_path())) {
      fs::resize_file(entry.path(), 100);
    }
  });
  EXPECT_THAT(error, HasSubstr("step-00000040.safetensors is damaged: "));
  EXPECT_THAT(error,
              HasSubstr("delete " + (folder / "a" / "checkpoints").string() + " to begin again"));
}

}  // namespace
}  // namespace seer::train
