// A run that is killed at any moment and started again ends as one that was not.

#include <gtest/gtest.h>

#include "seer/base/random.h"
#include "seer/train/testing/quadratic_task.h"
#include "seer/train/testing/run_fixture.h"

namespace seer::train {
namespace {

LoopSettings settings(const std::filesystem::path& out) {
  LoopSettings settings;
  settings.out = out;
  settings.steps = 150;
  settings.save_every = 1;  // so that most kills fall into the writing of a checkpoint
  settings.valid_every = 3;
  settings.show_progress = false;
  return settings;
}

std::string last_checkpoint(const std::filesystem::path& out) {
  return read_file(out / "checkpoints" / "step-00000150.safetensors");
}

// Tensors only: the header's metadata holds seconds.
std::string tensors_of(const std::string& checkpoint) {
  uint64_t header = 0;
  std::memcpy(&header, checkpoint.data(), 8);
  return checkpoint.substr(8 + header);
}

using Resume = RunTest;

TEST_F(Resume, KilledAtRandomMomentsEndsWithTheSameBits) {
  ASSERT_TRUE(run_child("ResumeChild.DISABLED_Run", folder / "whole", -1));
  Random random(11);
  int kills = 0;
  for (int64_t wait = 30'000; kills < 60; ++kills) {
    // Waits grow until the run gets through.
    wait = wait * 21 / 20;
    const auto microseconds = static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * wait)));
    if (run_child("ResumeChild.DISABLED_Run", folder / "killed", microseconds)) break;
  }
  ASSERT_TRUE(run_child("ResumeChild.DISABLED_Run", folder / "killed", -1));
  EXPECT_GE(kills, 3);
  EXPECT_EQ(tensors_of(last_checkpoint(folder / "killed")),
            tensors_of(last_checkpoint(folder / "whole")));
  EXPECT_EQ(metrics_of(folder / "killed"), metrics_of(folder / "whole"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "killed")) {
    EXPECT_EQ(entry.path().string().find(".tmp."), std::string::npos) << entry.path();
  }
}

// The process that is killed.
TEST(ResumeChild, DISABLED_Run) {
  ASSERT_FALSE(child_out().empty());
  QuadraticTask task;
  run(task, settings(child_out()));
}

}  // namespace
}  // namespace seer::train
