#include "seer/base/checksum.h"

#include <gtest/gtest.h>

namespace seer {
namespace {

TEST(Checksum, IsXxh3AndDoesNotDependOnThePieces) {
  EXPECT_EQ(checksum_of(""), "2d06800538d394c2");  // the seedless value of the empty string
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes += static_cast<char>(i * i);
  Checksum pieces;
  for (size_t at = 0; at < bytes.size(); at += 700)
    pieces.add(&bytes[at], std::min<size_t>(700, bytes.size() - at));
  EXPECT_EQ(pieces.hex(), checksum_of(bytes));
  bytes[4321] ^= 1;
  EXPECT_NE(pieces.hex(), checksum_of(bytes));
}

}  // namespace
}  // namespace seer
