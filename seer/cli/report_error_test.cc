#include "seer/cli/report_error.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>

namespace seer::cli {
namespace {

std::string reported(const std::string& text) {
  testing::internal::CaptureStderr();
  try {
    TORCH_CHECK(false, text);
  } catch (...) {
    EXPECT_EQ(report_error(), 1);
  }
  return testing::internal::GetCapturedStderr();
}

TEST(ReportError, MessagesOfOperationsAreNoInternalErrors) {
  EXPECT_EQ(reported("seer::lookup_score: q is too long"),
            "seer: error: lookup_score: q is too long\n");
  EXPECT_NE(reported("index 3 is out of range").find("internal error in torch"), std::string::npos);
}

}  // namespace
}  // namespace seer::cli
