// Packed files: whole, in pieces, cut off, damaged, and made to fill memory.
#include "seer/io/byte_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/limits.h"
#include "seer/io/testing/text_fixture.h"

namespace seer::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PackedText : public TextTest {};

TEST_F(PackedText, LargeWindows) {
  EXPECT_THAT(read("a.jsonl.zst", zstd_frame("{\"text\": \"a\"}", 28)), ElementsAre("a"));
  // A window is memory: 2 GiB are more than a small file can need.
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame("{\"text\": \"a\"}", 31)), HasSubstr("--long"));
}

TEST_F(PackedText, BrokenPacking) {
  const std::string frame = zstd_frame("{\"text\": \"abc\"}\n");
  for (size_t size = 1; size < frame.size(); ++size) {
    EXPECT_THAT(error_of("a.jsonl.zst", frame.substr(0, size)), HasSubstr("cut off")) << size;
  }
  EXPECT_THAT(error_of("a.jsonl.zst", "plain text"), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(error_of("a.jsonl.zst", frame + "tail"), HasSubstr("cannot be unpacked"));
}

TEST_F(PackedText, FilesThatUnpackToMoreThanTheirSizeJustifies) {
  const auto most = static_cast<int64_t>(limits::unpacked_bytes(0));
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame_of('a', most + (1 << 20))),
              HasSubstr("line 1 is longer than"));
  EXPECT_THAT(error_of("a.json.zst", zstd_frame("[") + zstd_frame_of('a', most + (1 << 20))),
              HasSubstr("line 1 is longer than"));
  EXPECT_THAT(error_of("a.txt.zst", zstd_frame_of('a', most + (1 << 20))),
              HasSubstr("has more than"));
  const auto blanks = static_cast<int64_t>(limits::kBlankBytes);
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame_of('\n', blanks + (1 << 20))),
              HasSubstr("bytes of blank lines"));
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame_of('\0', 1 << 20)), HasSubstr("byte 0 is zero"));
}

TEST_F(PackedText, GzipFilesOfManyMembers) {
  const std::string a = gzip_member("{\"text\": \"a\"}\n{\"te"), b = gzip_member("xt\": \"b\"}\n");
  EXPECT_THAT(read("a.jsonl.gz", a + gzip_member("") + b), ElementsAre("a", "b"));
  EXPECT_THAT(read("a.jsonl.gz", a + b + std::string(1000, '\0')), ElementsAre("a", "b"));
  EXPECT_THAT(error_of("a.jsonl.gz", a + b + std::string(1000, '\0') + "tail"),
              HasSubstr("bytes follow"));
  EXPECT_THAT(error_of("a.jsonl.gz", a + b + "tail"), HasSubstr("cannot be unpacked"));
  for (size_t size = 1; size < a.size(); ++size) {
    EXPECT_THAT(error_of("a.jsonl.gz", a.substr(0, size)), HasSubstr("cut off")) << size;
  }
  std::string damaged = a;
  damaged[20] ^= 1;
  EXPECT_THAT(error_of("a.jsonl.gz", damaged), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(error_of("a.jsonl.gz", gzip_member("")), HasSubstr("empty"));
}

}  // namespace
}  // namespace seer::io
