// Documents of text files, plain and packed, and files that are broken.
#include "seer/io/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/utf8.h"

namespace seer::io {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class TextTest : public ::testing::Test {
 protected:
  TextTest()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("seer_text_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~TextTest() override { std::filesystem::remove_all(folder_); }

  std::vector<std::string> read(const std::string& name, const std::string& content) {
    write_file_atomic(folder_ / name, content);
    std::vector<std::string> out;
    for_each_document(folder_ / name, [&](std::string&& text) { out.push_back(std::move(text)); });
    return out;
  }

  std::string error_of(const std::string& name, const std::string& content) {
    try {
      read(name, content);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(name));
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

// A Zstandard frame of one raw block (RFC 8878), with a window as `zstd --long` makes them.
std::string zstd_frame(const std::string& content, int window_log = 17) {
  std::string out("\x28\xB5\x2F\xFD\x00", 5);
  out += static_cast<char>((window_log - 10) << 3);
  const size_t header = content.size() << 3 | 1;
  for (int i = 0; i < 3; ++i) out += static_cast<char>(header >> (8 * i));
  return out + content;
}

TEST_F(TextTest, TextFileIsOneDocumentAsItIs) {
  EXPECT_THAT(read("a.txt", "line\r\nnext\rlast\n"), ElementsAre("line\r\nnext\rlast\n"));
  EXPECT_THAT(read("b.md", "{\"text\": 1}"), ElementsAre("{\"text\": 1}"));
}

TEST_F(TextTest, LinesAreDocuments) {
  const std::string lines =
      "{\"text\": \"a\\r\\nb\"}\n{\"id\": 1, \"text\": \"\"}\r\n{\"text\": \"\xC3\xA9\"}";
  EXPECT_THAT(read("a.jsonl", lines), ElementsAre("a\r\nb", "", "\xC3\xA9"));
  EXPECT_THAT(read("a.jsonl", lines + "\n"), SizeIs(3));
  EXPECT_THAT(read("a.jsonl.zst", zstd_frame(lines)), ElementsAre("a\r\nb", "", "\xC3\xA9"));
  EXPECT_THAT(read("a.json.zst", zstd_frame(lines)), SizeIs(3));
}

TEST_F(TextTest, LinesAndFramesMayCrossAnyBoundary) {
  // Longer than the buffers of the reader, and in two frames that meet inside of a line.
  const std::string text(300'000, 'x');
  const std::string lines = "{\"text\": \"" + text + "\"}\n{\"text\": \"b\"}\n";
  EXPECT_THAT(read("a.jsonl", lines), ElementsAre(text, "b"));
  std::string packed;
  for (size_t at = 0; at < lines.size(); at += 77'777)
    packed += zstd_frame(lines.substr(at, 77'777));
  EXPECT_THAT(read("a.jsonl.zst", packed), ElementsAre(text, "b"));
}

TEST_F(TextTest, LargeWindows) {
  EXPECT_THAT(read("a.jsonl.zst", zstd_frame("{\"text\": \"a\"}", 28)), ElementsAre("a"));
}

TEST_F(TextTest, MissingAndEmptyFiles) {
  for (const char* name : {"a.txt", "a.jsonl", "a.jsonl.zst"}) {
    EXPECT_THAT(error_of(name, ""), HasSubstr("empty"));
    EXPECT_THROW(for_each_document(folder_ / ("no-" + std::string(name)), [](std::string&&) {}),
                 Error);
  }
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame("")), HasSubstr("no line"));
}

TEST_F(TextTest, BrokenPacking) {
  const std::string frame = zstd_frame("{\"text\": \"abc\"}\n");
  for (size_t size = 1; size < frame.size(); ++size) {
    EXPECT_THAT(error_of("a.jsonl.zst", frame.substr(0, size)), HasSubstr("cut off")) << size;
  }
  EXPECT_THAT(error_of("a.jsonl.zst", "plain text"), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(error_of("a.jsonl.zst", frame + "tail"), HasSubstr("cannot be unpacked"));
}

TEST_F(TextTest, BrokenUtf8NamesLineAndByte) {
  EXPECT_THAT(error_of("a.txt", "ab\ncd\xFF"), AllOf(HasSubstr("line 2"), HasSubstr("byte 5")));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xC3\"}\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("byte 24")));
}

TEST_F(TextTest, LinesThatAreNoDocuments) {
  for (const char* line : {"", "[]", "{}", "{\"text\": 1}", "\"text\"", "{\"text\": null}"}) {
    EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"}\n" + std::string(line) + "\n"),
                HasSubstr("line 2"))
        << line;
  }
  EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"\n"), HasSubstr("not valid JSON, at byte 12"));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\", \"n\": 1e999}\n"), HasSubstr("number"));
}

TEST_F(TextTest, BrokenLinesGoToSkipAndTheOthersKeepTheirOrder) {
  const std::string lines =
      "{\"text\": \"a\"}\n"     // byte 0
      "{\"text\": \"\xC3\"}\n"  // 14, fault at 24
      "{\"text\": \"b\"\n"      // 28, fault at its end
      "{\"text\": 1}\n"         // 41
      "\n"                      // 53
      "{\"text\": \"c\"}\n"     // 54
      "{\"n\": 1e999}\n"        // 68
      "{\"text\": \"d\"";       // 81, cut off at 93
  for (const bool is_packed : {false, true}) {
    const std::string name = is_packed ? "a.jsonl.zst" : "a.jsonl";
    write_file_atomic(folder_ / name, is_packed ? zstd_frame(lines) : lines);
    std::vector<std::string> good, broken;
    for_each_document(
        folder_ / name,
        [&](Document&& d) {
          good.push_back(message(d.text, " ", d.place.line, " ", d.place.byte));
        },
        [&](BrokenDocument&& d) {
          broken.push_back(message(d.place.line, " ", d.place.byte, " ", d.reason));
        });
    EXPECT_THAT(good, ElementsAre("a 1 0", "c 6 54"));
    EXPECT_THAT(broken, ElementsAre("2 24 is not UTF-8", "3 40 is not valid JSON",
                                    "4 41 is not a JSON object with a string \"text\"",
                                    "5 53 is not valid JSON", "7 68 has a number that is too large",
                                    "8 93 is not valid JSON"));
  }
}

TEST_F(TextTest, WhatCannotBeReadOnFromIsAnErrorEvenWhereLinesMayBeBroken) {
  const auto error_with_skip = [&](const std::string& name, const std::string& content) {
    write_file_atomic(folder_ / name, content);
    try {
      for_each_document(folder_ / name, [](Document&&) {}, [](BrokenDocument&&) {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string frame = zstd_frame("{\"text\": \"abc\"}\n");
  EXPECT_THAT(error_with_skip("a.jsonl.zst", frame.substr(0, 12)), HasSubstr("cut off"));
  EXPECT_THAT(error_with_skip("a.jsonl.zst", frame + "tail"), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(error_with_skip("a.jsonl", ""), HasSubstr("empty"));
  EXPECT_THAT(error_with_skip("a.txt", "ab\ncd\xFF"),
              AllOf(HasSubstr("line 2 is not UTF-8, at byte 5"), HasSubstr("convert it")));
}

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::string::npos);
  EXPECT_EQ(find_invalid_utf8("plain \xE4\xB8\xAD \xF0\x9F\x98\x80 text"), std::string::npos);
  const std::pair<const char*, size_t> cases[] = {
      {"12345678\x80", 8},     {"a\xC3", 1},    {"\xC0\x80", 0},         {"\xED\xA0\x80", 0},
      {"\xF4\x90\x80\x80", 0}, {"\xE4\xB8", 0}, {"\xF5\x80\x80\x80", 0}, {"\xE0\x9F\xBF", 0},
      {"\xF0\x8F\xBF\xBF", 0}};
  for (const auto& [text, at] : cases) EXPECT_EQ(find_invalid_utf8(text), at) << text;
}

TEST(Utf8, EveryCodePointGoesThere) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    size_t pos = 0;
    ASSERT_EQ(next_code_point(text, pos), c);
    ASSERT_EQ(pos, text.size());
    ASSERT_EQ(find_invalid_utf8(text), std::string::npos);
  }
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string mark(kReplacementCharacter);
  EXPECT_EQ(replace_invalid_utf8("a\xF0\x9F\x98z"), "a" + mark + "z");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), mark + mark + mark);
  EXPECT_EQ(replace_invalid_utf8("\xE4\xB8\xE4\xB8\xAD\xE4"), mark + "\xE4\xB8\xAD" + mark);
  EXPECT_TRUE(utf8_step("\xE4\xB8").cut);
  EXPECT_FALSE(utf8_step("\xE4\xFF").cut);
}

}  // namespace
}  // namespace seer::io
