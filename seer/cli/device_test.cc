#include "seer/cli/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "seer/base/error.h"

namespace seer::cli {
namespace {

using testing::HasSubstr;

// What torchrun sets, for one test.
struct Environment {
  Environment(const char* rank, const char* processes) {
    ::setenv("LOCAL_RANK", rank, 1);
    ::setenv("LOCAL_WORLD_SIZE", processes, 1);
  }
  ~Environment() {
    ::unsetenv("LOCAL_RANK");
    ::unsetenv("LOCAL_WORLD_SIZE");
  }
};

std::string device_text(const std::string& name, int gpus, bool runs_all = true) {
  try {
    return resolve_device(name, gpus, [&] { return runs_all; }).str();
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Device, OneResolverForAllNames) {
  EXPECT_EQ(device_text("cpu", 2), "cpu");
  EXPECT_EQ(device_text("auto", 0), "cpu");
  EXPECT_EQ(device_text("auto", 1), "cuda:0");
  EXPECT_EQ(device_text("auto", 1, false), "cpu");
  EXPECT_EQ(device_text("cuda", 2, false), "cuda:0");
  EXPECT_EQ(device_text("cuda:1", 2), "cuda:1");
  EXPECT_THAT(device_text("cuda", 0), HasSubstr("choose cpu"));
  EXPECT_THAT(device_text("cuda:2", 2), HasSubstr("2 GPUs, from cuda:0 to cuda:1"));
}

TEST(Device, ProcessesOfAMachineTakeTheirOwn) {
  const Environment second("1", "2");
  EXPECT_EQ(device_text("cuda", 2), "cuda:1");
  EXPECT_EQ(device_text("auto", 2), "cuda:1");
  EXPECT_EQ(device_text("auto", 0), "cpu");
  EXPECT_THAT(device_text("cuda", 1), HasSubstr("start fewer processes"));
  EXPECT_THAT(device_text("cuda:0", 2), HasSubstr("would share it"));
  const Environment broken("1x", "1");
  EXPECT_THAT(device_text("cuda", 2), HasSubstr("LOCAL_RANK is \"1x\", want a number"));
}

TEST(Device, NamesAreChecked) {
  const auto wants = device_names().wants;
  for (const char* name : {"auto", "cpu", "cuda", "cuda:0", "cuda:7"}) EXPECT_EQ(wants(name), "");
  for (const char* name :
       {"gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", "cuda:1.5", "cuda:999"}) {
    EXPECT_THAT(wants(name), HasSubstr("auto, cpu, cuda or cuda:N")) << name;
  }
}

}  // namespace
}  // namespace seer::cli
