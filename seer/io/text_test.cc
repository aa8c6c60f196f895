// Documents of text files, plain and packed, and files that are broken.
#include "seer/io/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/utf8.h"
#include "seer/io/testing/text_fixture.h"

namespace seer::io {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(TextTest, TextFileIsOneDocumentAsItIs) {
  EXPECT_THAT(read("a.txt", "line\r\nnext\rlast\n"), ElementsAre("line\r\nnext\rlast\n"));
  EXPECT_THAT(read("b.md", "{\"text\": 1}"), ElementsAre("{\"text\": 1}"));
  EXPECT_THAT(read("README", "# plain"), ElementsAre("# plain"));
  EXPECT_THAT(read("a.txt", "\xEF\xBB\xBFline\n"), ElementsAre("line\n"));
  EXPECT_THAT(read("a.txt.zst", zstd_frame("line\n")), ElementsAre("line\n"));
  EXPECT_THAT(read("a.md.GZ", gzip_member("line\n")), ElementsAre("line\n"));
}

TEST_F(TextTest, LinesAreDocuments) {
  const std::string lines =
      "{\"text\": \"a\\r\\nb\"}\n{\"id\": 1, \"text\": \"\"}\r\n{\"text\": \"\xC3\xA9\"}";
  EXPECT_THAT(read("a.jsonl", lines), ElementsAre("a\r\nb", "", "\xC3\xA9"));
  EXPECT_THAT(read("a.jsonl", lines + "\n"), SizeIs(3));
  EXPECT_THAT(read("a.jsonl.zst", zstd_frame(lines)), ElementsAre("a\r\nb", "", "\xC3\xA9"));
  for (const char* name : {"a.json", "a.ndjson", "A.JSONL", "a.Json", "a.b.jsonl"}) {
    EXPECT_THAT(read(name, lines), SizeIs(3)) << name;
    EXPECT_THAT(read(name + std::string(".zst"), zstd_frame(lines)), SizeIs(3)) << name;
    EXPECT_THAT(read(name + std::string(".gz"), gzip_member(lines)), SizeIs(3)) << name;
  }
}

TEST_F(TextTest, BlankLinesAndTheByteOrderMarkAreNothing) {
  const std::string lines =
      "\xEF\xBB\xBF\n \t\r\n{\"text\": \"a\"}\r\n\r\n\n  {\"text\": \"b\"} \n\n \n";
  EXPECT_THAT(read("a.jsonl", lines), ElementsAre("a", "b"));
  EXPECT_THAT(read("a.json", lines), ElementsAre("a", "b"));
  TextReader reader(folder_ / "a.jsonl", TextReader::Broken::skip);
  const auto a = reader.next(), b = reader.next();
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(a->place.line, 3);
  EXPECT_EQ(a->place.byte, 8);
  EXPECT_EQ(b->place.line, 6);
  EXPECT_EQ(reader.skipped().count, 0);
  EXPECT_EQ(reader.documents(), 2);
  EXPECT_THAT(error_of("a.jsonl", "\n \r\n\n"), HasSubstr("has no document"));
  EXPECT_THAT(error_of("a.json", "\n\n"), HasSubstr("has no document"));
}

TEST_F(TextTest, JsonFilesAreReadForWhatTheyAre) {
  EXPECT_THAT(read("a.json", R"( [{"id": [1, {"x": "]"}], "text": "a, ]\" b\\"},
      {"text": "c"} , "d" ] )"),
              ElementsAre("a, ]\" b\\", "c", "d"));
  EXPECT_THAT(read("a.json", "{\n  \"text\": \"one\",\n  \"n\": 1\n}\n"), ElementsAre("one"));
  EXPECT_THAT(read("a.json", "{\"text\": \"one\"}"), ElementsAre("one"));
  const std::string text(300'000, ',');
  EXPECT_THAT(read("a.json", "[\"" + text + "\",\n\"b\"]"), ElementsAre(text, "b"));
  EXPECT_THAT(read("a.json", std::string(5000, '\n') + "[\"a\", \"b\"]"), ElementsAre("a", "b"));
  EXPECT_THAT(error_of("a.json", "[]"), HasSubstr("has no document"));
  EXPECT_THAT(error_of("a.json", "[{\"text\": \"a\"},\n {\"te"), HasSubstr("cut off"));
  EXPECT_THAT(error_of("a.json", "[{\"text\": \"a\"}"), HasSubstr("cut off"));
  EXPECT_THAT(error_of("a.json", "[\"a\"]\n[\"b\"]"), HasSubstr("line 2 goes on behind the end"));
  EXPECT_THAT(error_of("a.json", "[\"a\",\n {\"body\": 1}]"),
              HasSubstr("line 2 is not a JSON object with a string \"text\""));
  EXPECT_THAT(error_of("a.json", "[\"a\",\n{\"text\":\n\"b\" 1}]"),
              HasSubstr("line 3 is not valid JSON, at byte 19"));
  EXPECT_THAT(error_of("a.json", "{\n\"data\": [1]}"), HasSubstr("one JSON object with \"text\""));
  EXPECT_THAT(error_of("a.json", "plain words"), HasSubstr("call it .txt"));
}

TEST_F(TextTest, OtherKindsAreRefusedByName) {
  for (const char* name : {"a.parquet", "a.CSV", "a.arrow", "a.jsonl.bz2", "a.txt.xz", "a.zip",
                           "a.pdf", "a.docx", "a.tar.gz", "a.jsonl.gz.zst"}) {
    EXPECT_THAT(error_of(name, "words"), AllOf(HasSubstr("by its name"), HasSubstr(".jsonl")));
  }
  EXPECT_THAT(error_of("a.parquet", "words"), HasSubstr("write it as JSON lines"));
  EXPECT_THAT(error_of("a.zip", "words"), HasSubstr("unpack it"));
}

TEST_F(TextTest, OtherKindsAreRefusedByTheirFirstBytes) {
  EXPECT_THAT(error_of("a.txt", gzip_member("words")), HasSubstr("add .gz to its name"));
  EXPECT_THAT(error_of("a.jsonl", zstd_frame("words")), HasSubstr("add .zst to its name"));
  EXPECT_THAT(error_of("a.jsonl.gz", zstd_frame("words")), HasSubstr("packed with Zstandard"));
  EXPECT_THAT(error_of("a.jsonl.gz", "{\"text\": \"a\"}"), HasSubstr("not gzip, as its name says"));
  EXPECT_THAT(error_of("a.txt.gz", gzip_member(zstd_frame("words"))), HasSubstr("Zstandard"));
  EXPECT_THAT(error_of("a", "PAR1...."), HasSubstr("Parquet"));
  EXPECT_THAT(error_of("a.txt", std::string("\xFF\xFEw\0o\0", 6)), HasSubstr("UTF-16"));
  EXPECT_THAT(error_of("a.txt", std::string("wo\0rds", 6)), HasSubstr("byte 2 is zero"));
  EXPECT_THAT(error_of("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(error_of("a.jsonl.gz", "<!DOCTYPE html><html>login</html>"), HasSubstr("web page"));
  EXPECT_THAT(read("a.txt", "<html>words</html>"), ElementsAre("<html>words</html>"));
}

TEST_F(TextTest, NoPlainTextOfJsonDocuments) {
  for (const char* text : {"{\"text\": \"a\"}\n\n{\"text\": \"b\", \"n\": NaN}\n",
                           "{\n\"text\": \"a\"}\n", " [{\"text\": \"a\"}, {\"text\": \"b\"}]"}) {
    EXPECT_THAT(error_of("a.txt", text), HasSubstr("call it .jsonl")) << text;
    EXPECT_EQ(read_text(folder_ / "a.txt"), text) << "a prompt may be anything";
  }
  for (const char* text : {"{\"text\": \"a\"}\nand words\n", "[1, 2]", "[]", "{}", "{ if (x) }"}) {
    EXPECT_THAT(read("a.txt", text), ElementsAre(text));
  }
}

TEST_F(TextTest, PromptsAreReadAsTheyAreWhateverTheirName) {
  write_file_atomic(folder_ / "table.csv",
                    "\xEF\xBB\xBF"
                    "a,b\n");
  EXPECT_EQ(read_text(folder_ / "table.csv"), "a,b\n");
  write_file_atomic(folder_ / "p.gz", gzip_member("words"));
  EXPECT_EQ(read_text(folder_ / "p.gz"), "words");
}

TEST_F(TextTest, FieldsThatAreNotReadMayHoldAnything) {
  const std::string long_number(400, '7');
  EXPECT_THAT(
      read("a.jsonl", "{\"a\": NaN, \"text\": \"NaN\", \"b\": [Infinity, -Infinity, 1e999, " +
                          long_number + "], \"c\": {\"text\": 1}}"),
      ElementsAre("NaN"));
  const auto nested = [](int depth) {
    return "{\"text\": \"a\", \"x\": " + std::string(depth, '[') + std::string(depth, ']') + "}\n";
  };
  EXPECT_THAT(read("a.jsonl", nested(100)), ElementsAre("a"));
  EXPECT_THAT(error_of("a.jsonl", nested(100'000)), HasSubstr("line 1 is nested deeper than"));
}

TEST_F(TextTest, WhatIsNoFileIsNamed) {
  const auto error = [](const std::filesystem::path& path) {
    try {
      check_text_file(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error(folder_), HasSubstr("is a folder: name the files in it"));
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error(folder_ / "pipe"), HasSubstr("is a pipe or a device"));
  EXPECT_THAT(error("/dev/zero"), HasSubstr("is a pipe or a device"));
  EXPECT_THAT(error(folder_ / "none.txt"), HasSubstr("No such file"));
}

TEST_F(TextTest, MoreThanHalfIsNoticedEarly) {
  // What follows would be another error, were it read.
  const std::string good = "{\"text\": \"a\"}\n", empty = "{\"text\": \"\"}\n",
                    broken = std::string(30'000, 'x') + "\n";
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += good + broken + empty;
  const auto read_all = [&](const std::string& content, TextReader::Broken mode) {
    write_file_atomic(folder_ / "a.jsonl", content);
    try {
      TextReader reader(folder_ / "a.jsonl", mode);
      while (reader.next()) continue;
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(read_all(lines, TextReader::Broken::skip),
              AllOf(HasSubstr("more than half"), HasSubstr("line 2 is not valid JSON (byte 14)")));
  EXPECT_EQ(read_all(lines.substr(0, 100'000), TextReader::Broken::skip), "no error");
  lines.clear();
  const std::string blank_field = "{\"x\": \"" + std::string(30'000, 'x') + "\", \"text\": \"\"}\n";
  for (int i = 0; i < 1000; ++i) lines += blank_field;
  EXPECT_THAT(read_all(lines, TextReader::Broken::fail), HasSubstr("line 1 has no text"));
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

TEST_F(TextTest, MissingAndEmptyFiles) {
  for (const char* name : {"a.txt", "a.jsonl", "a.jsonl.zst"}) {
    EXPECT_THAT(error_of(name, ""), HasSubstr("empty"));
    EXPECT_THROW(for_each_document(folder_ / ("no-" + std::string(name)), [](std::string&&) {}),
                 Error);
  }
  EXPECT_THAT(error_of("a.jsonl.zst", zstd_frame("")), HasSubstr("empty"));
}

TEST_F(TextTest, BrokenUtf8NamesLineAndByte) {
  EXPECT_THAT(error_of("a.txt", "ab\ncd\xFF"), AllOf(HasSubstr("line 2"), HasSubstr("byte 5")));
  EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xC3\"}\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("byte 24")));
}

TEST_F(TextTest, LinesThatAreNoDocuments) {
  for (const char* line : {"[]", "{}", "{\"text\": 1}", "\"text\"", "{\"text\": null}"}) {
    EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"}\n" + std::string(line) + "\n"),
                HasSubstr("line 2"))
        << line;
  }
  EXPECT_THAT(error_of("a.jsonl", "{\"text\": \"a\"\n"), HasSubstr("not valid JSON, at byte 12"));
}

TEST_F(TextTest, BrokenLinesAreSkippedAndTheOthersKeepTheirOrder) {
  const std::string lines =
      "{\"text\": \"a\"}\n"     // byte 0
      "{\"text\": \"\xC3\"}\n"  // 14, fault at 24
      "{\"text\": \"b\"\n"      // 28, fault at its end
      "{\"text\": 1}\n"         // 41
      "\n"                      // 53
      "{\"text\": \"c\"}\n"     // 54
      "{\"text\": \"d\"";       // 68, cut off at 80
  for (const bool is_packed : {false, true}) {
    const std::string name = is_packed ? "a.jsonl.zst" : "a.jsonl";
    write_file_atomic(folder_ / name, is_packed ? zstd_frame(lines) : lines);
    TextReader reader(folder_ / name, TextReader::Broken::skip);
    std::vector<std::string> good;
    while (const auto d = reader.next()) {
      good.push_back(message(d->text, " ", d->place.line, " ", d->place.byte));
    }
    EXPECT_THAT(good, ElementsAre("a 1 0", "c 6 54"));
    EXPECT_EQ(reader.documents(), 6);
    EXPECT_EQ(reader.skipped().count, 4);
    EXPECT_EQ(reader.skipped().places(),
              "line 2 is not UTF-8 (byte 24), line 3 is not valid JSON (byte 40), "
              "line 4 is not a JSON object with a string \"text\" (byte 41), ...");
  }
}

TEST_F(TextTest, WhatCannotBeReadOnFromIsAnErrorEvenWhereLinesMayBeBroken) {
  const auto error_with_skip = [&](const std::string& name, const std::string& content) {
    write_file_atomic(folder_ / name, content);
    try {
      TextReader reader(folder_ / name, TextReader::Broken::skip);
      while (reader.next()) continue;
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
