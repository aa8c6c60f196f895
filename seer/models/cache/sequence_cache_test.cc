#include "seer/models/cache/sequence_cache.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

TEST(SequenceCache, GivesBackWhatWasAppended) {
  SequenceCache cache(2);
  std::vector<at::Tensor> keys[2], values[2];
  for (const int64_t t : {5, 1, 1, 300, 1, 7}) {
    for (int layer = 0; layer < 2; ++layer) {
      const uint64_t seed = static_cast<uint64_t>(cache.length() * 2 + layer);
      keys[layer].push_back(test::normal({t, 3, 8}, seed));
      values[layer].push_back(test::normal({t, 3, 8}, seed + 1000));
      const auto [k, v] = cache.append(layer, keys[layer].back(), values[layer].back());
      EXPECT_TRUE(k.equal(at::cat(keys[layer], 0)));
      EXPECT_TRUE(v.equal(at::cat(values[layer], 0)));
    }
    cache.advance(t);
  }
  EXPECT_EQ(cache.length(), 315);
}

TEST(SequenceCache, AppendsInPlaceWhereRoomIsExpected) {
  SequenceCache cache(1, /*expected=*/100);
  const at::Tensor k = test::normal({70, 3, 8}, 1), v = test::normal({70, 3, 8}, 2);
  const auto [first_k, first_v] = cache.append(0, k, v);
  cache.advance(70);
  const auto [all_k, all_v] = cache.append(0, k.narrow(0, 0, 30), v.narrow(0, 0, 30));
  cache.advance(30);
  EXPECT_EQ(all_k.const_data_ptr(), first_k.const_data_ptr());
  EXPECT_EQ(all_v.const_data_ptr(), first_v.const_data_ptr());
  EXPECT_EQ(cache.append(0, k.narrow(0, 0, 1), v.narrow(0, 0, 1)).first.size(0), 101);
  EXPECT_TRUE(first_k.equal(k));
}

TEST(SequenceCache, KeysOfAHeadLieTogether) {
  SequenceCache cache(1);
  const at::Tensor k = test::normal({9, 3, 8}, 1);
  EXPECT_EQ(cache.append(0, k, k).first.stride(0), 8);
}

TEST(SequenceCache, KeepsNoGradient) {
  SequenceCache cache(1);
  const at::Tensor k = test::normal({2, 1, 4}, 1).requires_grad_(true);
  EXPECT_FALSE(cache.append(0, k, k).first.requires_grad());
}

TEST(SequenceCache, RejectsWrongUse) {
  SequenceCache cache(1);
  const at::Tensor k = test::normal({2, 1, 4}, 1);
  EXPECT_THROW(cache.append(1, k, k), Error);
  EXPECT_THROW(cache.append(0, k, k.narrow(0, 0, 1)), Error);
}

}  // namespace
}  // namespace seer::models
