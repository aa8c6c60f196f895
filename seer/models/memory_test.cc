#include "seer/models/memory.h"

#include <gtest/gtest.h>

#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

TEST(Memory, OfWeightsAndCacheIsThatOfTheTensors) {
  Decoder model = test::small_model();
  double bytes = 0, norms = 0;
  for (const auto& [name, tensor] : named_weights(model.weights())) {
    bytes += static_cast<double>(tensor->nbytes());
    if (tensor->dim() == 1) norms += static_cast<double>(tensor->nbytes());
  }
  EXPECT_EQ(weight_bytes(model.config(), at::kFloat), bytes - norms);
  EXPECT_EQ(cache_bytes(model.config(), 100, at::kFloat), 2 * 2 * 2 * 16 * 100 * 4.0);
  EXPECT_EQ(cache_bytes(model.config(), 100, at::kBFloat16), 2 * 2 * 2 * 16 * 100 * 2.0);
  EXPECT_GT(pass_bytes(model.config(), 4096, 16, at::kFloat),
            pass_bytes(model.config(), 4096, 64, at::kFloat));
}

TEST(Memory, AvailableAndText) {
  EXPECT_GT(available_bytes(at::kCPU), 1e6);
  EXPECT_LT(available_bytes(at::kCPU), 1e15);
  EXPECT_EQ(bytes_text(12), "12 bytes");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text(1023 * 1024.0), "1.0 MiB");
  EXPECT_EQ(bytes_text(45.8 * 1024 * 1024 * 1024), "46 GiB");
}

}  // namespace
}  // namespace seer::models
