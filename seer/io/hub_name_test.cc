#include "seer/io/hub_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"
#include "seer/io/gate_file.h"

namespace seer::io {
namespace {

TEST(HubName, IsThatBehindTheOrganisation) {
  EXPECT_EQ(hub_name("Some-org/Gates_8B.v2"), "Gates_8B.v2");
  for (const char* other :
       {"", "folder", "/absolute", "../up", "a/b/c", "Org/", "/Name", "Org/na me"}) {
    EXPECT_EQ(hub_name(other), "") << other;
    EXPECT_EQ(hub_download(other), "") << other;
  }
}

TEST(HubName, OfGatesThatAreNotHere) {
  try {
    read_gate_config("Org/Gates-8B");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::HasSubstr("no folder here; gates of this name on Hugging Face "
                                   "are got by `hf download Org/Gates-8B --local-dir "
                                   "Gates-8B`"));
  }
}

}  // namespace
}  // namespace seer::io
