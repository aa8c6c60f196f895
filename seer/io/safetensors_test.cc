// Round trips, and files that are broken in every way that a header can be.

#include "seer/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/random.h"

namespace seer::io {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Safetensors : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        fs::temp_directory_path() / message("seer_safetensors_", info->name(), "_", ::getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& header, const std::string& data) {
    return write_length(header.size(), header + data);
  }
  fs::path write_length(uint64_t length, const std::string& rest) {
    const fs::path path = folder_ / "file.safetensors";
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << rest;
    return path;
  }
  size_t files() { return std::distance(fs::directory_iterator(folder_), {}); }
  static std::string error_of(const fs::path& path) {
    try {
      SafetensorsFile file(path);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(path.string()));
      EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
      return error.what();
    }
    return "no error";
  }

  fs::path folder_;
};

TensorRecord record(const std::string& dtype, std::vector<int64_t> shape,
                    const std::string& bytes) {
  return {dtype, std::move(shape), reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

TEST_F(Safetensors, RoundTrip) {
  const std::string a(24, 'a'), b(3, 'b');
  const fs::path path = folder_ / "deep" / "file.safetensors";
  write_safetensors(path,
                    {{"z", record("F32", {2, 3}, a)},
                     {"empty", record("I64", {0, 5}, "")},
                     {"m \"q\"", record("U8", {3}, b)},
                     {"scalar", record("BF16", {}, "xy")}},
                    {{"key", "value"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.metadata().at("key"), "value");
  EXPECT_EQ(file.at("z").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.at("z").dtype, "F32");
  EXPECT_EQ(std::memcmp(file.at("z").data, a.data(), 24), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.at("z").data) % 8, 0u);
  EXPECT_EQ(file.at("empty").bytes, 0u);
  EXPECT_EQ(std::memcmp(file.at("m \"q\"").data, b.data(), 3), 0);
  EXPECT_TRUE(file.at("scalar").shape.empty());
  EXPECT_FALSE(file.contains("y"));
  try {
    file.at("y");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("has no tensor \"y\""));
  }
}

TEST_F(Safetensors, MappingOutlivesTheFile) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string a(4, 'a');
  write_safetensors(path, {{"a", record("U8", {4}, a)}});
  std::shared_ptr<const void> mapping;
  const std::byte* data = nullptr;
  {
    const SafetensorsFile file(path);
    mapping = file.mapping();
    data = file.at("a").data;
  }
  EXPECT_EQ(std::memcmp(data, a.data(), 4), 0);
}

TEST_F(Safetensors, NoTensors) {
  EXPECT_TRUE(SafetensorsFile(write("{}  ", "")).tensors().empty());
}

TEST_F(Safetensors, BadFiles) {
  EXPECT_THAT(error_of(folder_ / "none"), HasSubstr("cannot open"));
  const fs::path short_file = folder_ / "short";
  std::ofstream(short_file) << "1234";
  EXPECT_THAT(error_of(short_file), HasSubstr("has 4 bytes"));
  EXPECT_THAT(error_of(write_length(100, "{}")), HasSubstr("truncated"));
  EXPECT_THAT(error_of(write_length(~0ull, "{}")), HasSubstr("at most 100000000"));
  EXPECT_THAT(error_of(write_length(~0ull - 7, "{}")), HasSubstr("at most 100000000"));
  EXPECT_THAT(error_of(write("{\"a\":", "")), HasSubstr("not valid JSON at byte 6"));
  EXPECT_THAT(error_of(write("[]", "")), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(write(std::string(100000, '['), "")),
              HasSubstr("nested deeper than 256 levels"));
  EXPECT_THAT(error_of(write("{}", "x")), HasSubstr("1 bytes at its end"));
}

TEST_F(Safetensors, BadTensors) {
  const struct {
    const char* header;
    const char* want;
  } kCases[] = {
      {R"({"a":3})", "no dtype"},
      {R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", "unknown dtype"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", "no shape"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "no pair"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "no pair"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "not a whole number"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "not a whole number"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,"8"]}})", "not a whole number"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "bytes 8 to 0 of 8"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "truncated"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "has 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}})",
       "has 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})",
       "not a whole number"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
           "b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "overlaps"},
      {R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},
           "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "overlaps"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "a hole of 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "4 bytes at its end"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
           "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "twice"},
      {R"({"__metadata__":{"a":1}})", "not a string"},
      {R"({"__metadata__":"a"})", "not an object of strings"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(error_of(write(c.header, std::string(8, 'x'))), HasSubstr(c.want)) << c.header;
  }
}

TEST_F(Safetensors, EveryCutIsAnError) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string a(40, 'a');
  write_safetensors(path, {{"a", record("F32", {10}, a)}}, {{"k", "v"}});
  const std::string bytes = read_file(path);
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::ofstream(path, std::ios::binary) << bytes.substr(0, size);
    EXPECT_NE(error_of(path), "no error") << size;
  }
}

// Any change of a few bytes is read or refused, never a crash.
TEST_F(Safetensors, ChangedBytes) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string a(40, 'a'), b(6, 'b');
  write_safetensors(path, {{"a", record("F32", {5, 2}, a)}, {"b", record("U8", {6}, b)}});
  const std::string bytes = read_file(path);
  Random random(1);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string changed = bytes;
    for (int i = 0; i < 3; ++i) {
      changed[random.below(changed.size() - 46)] = static_cast<char>(random.below(256));
    }
    std::ofstream(path, std::ios::binary) << changed;
    refused += error_of(path) != "no error";
  }
  EXPECT_GT(refused, 1500);
}

TEST_F(Safetensors, WriterRefuses) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string a(8, 'a');
  EXPECT_THROW(write_safetensors(path, {{"a", record("F32", {3}, a)}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"a", record("X", {2}, a)}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", record("F32", {2}, a)}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"\xff", record("F32", {2}, a)}}), Error);
  EXPECT_THROW(
      write_safetensors(path, {{"a", record("F32", {2}, a)}, {"a", record("F32", {2}, a)}}), Error);
  EXPECT_EQ(files(), 0u);
}

// A limit on the size of files stands in for a full disk: the write fails in the middle.
TEST_F(Safetensors, FailedWriteLeavesTheOldFile) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string small(8, 's'), large(1 << 20, 'l');
  write_safetensors(path, {{"a", record("U8", {8}, small)}});
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{4096, before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::string error;
  try {
    write_safetensors(path, {{"a", record("U8", {1 << 20}, large)}});
  } catch (const Error& caught) {
    error = caught.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(error, HasSubstr("cannot write " + path.string()));
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(SafetensorsFile(path).at("a").bytes, 8u);
}

TEST_F(Safetensors, AChecksumFindsEveryFlippedBit) {
  const fs::path path = folder_ / "file.safetensors";
  const std::string bytes = "12345678";
  write_safetensors(path, {{"a", record("F32", {2}, bytes)}}, {{"note", "a \"checksum\":\"x\""}},
                    /*with_checksum=*/true);
  SafetensorsFile(path).check_sum();
  const std::string whole = read_file(path);
  for (size_t bit = 0; bit < 8 * whole.size(); bit += 3) {
    std::string other = whole;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << bit % 8));
    std::ofstream(path, std::ios::binary) << other;
    EXPECT_THROW(SafetensorsFile(path).check_sum(), BadSafetensors) << bit;
  }
  write_safetensors(path, {{"a", record("F32", {2}, bytes)}});
  try {
    SafetensorsFile(path).check_sum();
    ADD_FAILURE() << "no error";
  } catch (const BadSafetensors& error) {
    EXPECT_EQ(error.reason, "it has no checksum");
  }
}

}  // namespace
}  // namespace seer::io
