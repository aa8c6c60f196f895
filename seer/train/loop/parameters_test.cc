// Parameters that are dealt out over processes.

#include "seer/train/loop/parameters.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>

#include "seer/train/testing/loop_fixture.h"
#include "seer/train/testing/ports.h"

namespace seer::train {
namespace {

using ::testing::ElementsAre;

TEST(Owners, EachHasAboutTheSameNumberOfElements) {
  EXPECT_THAT(owners({10, 3, 3, 3}, 2), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(owners({1, 5, 2, 5}, 3), ElementsAre(2, 0, 2, 1));
  EXPECT_THAT(owners({4}, 2), ElementsAre(0));
}

// One of several processes that hear nothing of each other.
class Alone : public Ranks {
 public:
  Alone(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }

 private:
  int rank_, size_;
};

std::vector<ParameterGroup> groups_of(at::ScalarType dtype) {
  const auto leaf = [&](at::IntArrayRef shape) {
    return at::ones(shape, at::TensorOptions(dtype)).requires_grad_();
  };
  return {{"matrices", {{"a", leaf({8, 4})}, {"b", leaf({8, 4})}, {"c", leaf({4, 4})}}, Muon{}},
          {"others", {{"d", leaf({40})}, {"e", leaf({30})}}, AdamW{}}};
}

TEST(Parameters, AProcessHasMastersAndStatesOfItsOwnOnly) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    // Momentum of 80 elements, two moments of 70, two counts; masters of 150.
    const int64_t all = 4 * (80 + 2 * 70 + 2 + (dtype == at::kFloat ? 0 : 150));
    int64_t sum = 0;
    for (int rank = 0; rank < 3; ++rank) {
      Alone ranks(rank, 3);
      auto groups = groups_of(dtype);
      const Parameters parameters(groups, ranks, /*states_on_host=*/false);
      EXPECT_GT(parameters.state_bytes(), 0.2 * static_cast<double>(all)) << rank;
      EXPECT_LT(parameters.state_bytes(), 0.5 * static_cast<double>(all)) << rank;
      sum += parameters.state_bytes();
    }
    EXPECT_EQ(sum, all);
    Alone one(0, 1);
    auto groups = groups_of(dtype);
    EXPECT_EQ(Parameters(groups, one, false).state_bytes(), all);
  }
}

TEST(Parameters, NarrowLeavesFollowMastersThatBeginAsTheyWere) {
  Alone one(0, 1);
  for (const bool on_host : {false, true}) {
    const at::Tensor leaf = at::full({3}, 1, at::kBFloat16).requires_grad_();
    std::vector<ParameterGroup> groups{
        {"g", {{"w", leaf, at::full({3}, 1.001)}}, AdamW{}, 1e-3, {}}};
    Parameters parameters(groups, one, on_host);
    EXPECT_FALSE(groups[0].parameters[0].initial.defined());
    EXPECT_TRUE(at::equal(parameters.tensors()[0].second, at::full({3}, 1.001)));
    parameters.zero_gradients();
    for (int i = 0; i < 2; ++i) {  // sums of narrow gradients are not narrow
      (leaf * at::full({3}, i == 0 ? 256 : 0.5, at::kBFloat16)).sum().backward();
      parameters.collect();
      EXPECT_FALSE(leaf.grad().defined());
    }
    EXPECT_NEAR(parameters.norm().item<double>(), 256.5 * std::sqrt(3.0), 1e-3);
    parameters.step({1e-3}, at::zeros({}), at::Tensor());
    EXPECT_NEAR(parameters.tensors()[0].second[0].item<double>(), 1, 1e-6);
    EXPECT_EQ(leaf[0].item<double>(), 1);
    parameters.step({0.5}, at::zeros({}), at::Tensor());
    EXPECT_EQ(leaf[0].item<double>(), 0.5);
  }
}

// ----------------------------------------------------------------------------- Several processes

class SharedRun : public LoopTest {
 protected:
  // `processes` run to step `stop` (-1: to the end) in `name`.
  void go(const std::string& name, int processes, int stop = -1, bool on_host = false) {
    ::setenv("SEER_TEST_STOP", std::to_string(stop).c_str(), 1);
    ::setenv("SEER_TEST_HOST", on_host ? "1" : "0", 1);
    ::setenv("WORLD_SIZE", std::to_string(processes).c_str(), 1);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("MASTER_PORT", std::to_string(free_port()).c_str(), 1);
    std::vector<pid_t> children;
    for (int rank = 0; rank < processes; ++rank) {
      ::setenv("RANK", std::to_string(rank).c_str(), 1);
      children.push_back(start_child("SharedRunChild.DISABLED_Run", folder / name));
    }
    for (const pid_t child : children) EXPECT_TRUE(ended_well(child)) << name;
    ::unsetenv("WORLD_SIZE");
  }
  // Metrics and the last checkpoint of two runs are the same up to the order of sums.
  void expect_same(const std::string& a, const std::string& b) {
    const auto x = metrics_of(folder / a), y = metrics_of(folder / b);
    ASSERT_EQ(x.size(), y.size());
    for (size_t i = 0; i < x.size(); ++i) {
      for (const auto& [key, value] : x[i].items()) {
        EXPECT_NEAR(value.get<double>(), y[i][key].get<double>(), 1e-4) << i << " " << key;
      }
    }
    const auto file = [&](const std::string& name) {
      return read_file(folder / name / "checkpoints" / "step-00000040.safetensors").size();
    };
    EXPECT_NEAR(static_cast<double>(file(a)), static_cast<double>(file(b)), 64);
  }
};

TEST_F(SharedRun, TheNumberOfProcessesIsNoMatter) {
  go("one", 1);
  go("two", 2);
  go("two on the host", 2, -1, /*on_host=*/true);
  expect_same("one", "two");
  EXPECT_EQ(metrics_of(folder / "two"), metrics_of(folder / "two on the host"));
}

TEST_F(SharedRun, ARunGoesOnWithAnotherNumberOfProcesses) {
  go("whole", 1);
  go("fewer", 2, 17);
  go("fewer", 1);
  expect_same("whole", "fewer");
  go("more", 1, 17);
  go("more", 2, 30);
  go("more", 3);  // one has no parameters
  expect_same("whole", "more");
}

// One of the processes. It ends as if it were killed.
TEST(SharedRunChild, DISABLED_Run) {
  ASSERT_FALSE(child_out().empty());
  at::set_num_threads(1);
  const auto ranks = Ranks::from_environment(at::kCPU);
  const int stop = std::atoi(std::getenv("SEER_TEST_STOP"));
  LoopSettings settings;
  settings.out = child_out();
  settings.steps = 40;
  settings.save_every = 7;
  settings.show_progress = false;
  settings.states_on_host = std::getenv("SEER_TEST_HOST")[0] == '1';
  settings.ranks = ranks.get();
  QuadraticTask task(1, /*micro_batches=*/6);
  task.before_backward = [&](int64_t step, int64_t) {
    if (step == stop) ::_exit(0);
  };
  run(task, settings);
}

}  // namespace
}  // namespace seer::train
