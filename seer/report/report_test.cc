#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "seer/base/file.h"
#include "seer/report/image.h"
#include "seer/report/results.h"
#include "seer/report/table.h"

namespace seer::report {
namespace {

TEST(Table, AlignsNumbersRight) {
  Table table({"method", "ppl"});
  table.add({"dense", "9.5"});
  table.add({"random", "10.25"});
  EXPECT_EQ(table.text(), "method    ppl\ndense     9.5\nrandom  10.25\n");
}

TEST(Columns, LinesComeOneByOne) {
  const Columns columns({{"method", 9}, {"ppl", 3, true}});
  EXPECT_EQ(columns.head(), "method     ppl\n");
  EXPECT_EQ(columns.line({"dense", "9.5"}), "dense      9.5\n");
  EXPECT_EQ(columns.line({"streaming", "1234.5"}), "streaming  1234.5\n");  // wider than thought
  EXPECT_EQ(columns.line({"dense", ""}), "dense\n");
}

TEST(Image, ClipsAndDrawsText) {
  Image image(20, 10, {255, 255, 255});
  image.fill(15, 8, 100, 100, {1, 2, 3});
  image.fill(-5, -5, 6, 6, {4, 5, 6});
  EXPECT_EQ(image.at(19, 9), (Color{1, 2, 3}));
  EXPECT_EQ(image.at(0, 0), (Color{4, 5, 6}));
  EXPECT_EQ(image.at(1, 1), (Color{255, 255, 255}));
}

TEST(Image, DrawsText) {
  Image image(60, 30, kWhite);
  image.text(10, 5, "L", kText, 18);
  const auto inked = [&](int x, int y, int width, int height) {
    int count = 0;
    for (int i = 0; i < width * height; ++i)
      count += image.at(x + i % width, y + i / width) != kWhite;
    return count;
  };
  const int height = Image::text_height(18);
  EXPECT_GE(inked(10, 5, 5, height), height - 1) << "its stem";
  EXPECT_EQ(inked(15, 5, 45, height - 4), 0) << "and nothing to the right of it";
  EXPECT_EQ(inked(0, 0, 60, 4) + inked(0, 5 + height, 60, 5), 0) << "it stands on the baseline";
  image.text(55, 25, "WWW", kText);  // what lies outside is left out
  EXPECT_EQ(Image::text_width("ll"), Image::text_width("\u00ec\u00ed")) << "letters, not bytes";
  EXPECT_LT(Image::text_width("ill"), Image::text_width("WWW"));
  EXPECT_EQ(Image::text_width("\xc3"), Image::text_width("\ufffd")) << "what is no letter";
  EXPECT_EQ(Image::text_width(""), 0);
}

TEST(Image, DrawsLinesWithBothEnds) {
  Image image(20, 20, kWhite);
  image.line(15, 4, 3, 16, 3, kText);
  for (int i = 0; i <= 12; ++i) EXPECT_EQ(image.at(15 - i, 4 + i), kText) << i;
  EXPECT_EQ(image.at(16, 3), kText) << "as thick as asked";
  EXPECT_EQ(image.at(18, 4), kWhite);
  EXPECT_EQ(image.at(9, 13), kWhite);
  image.line(1, 1, 1, 1, 1, kFaint);
  EXPECT_EQ(image.at(1, 1), kFaint);
}

TEST(Image, WritesAPngFile) {
  const auto path = std::filesystem::path(testing::TempDir()) / "image_test.png";
  Image(3, 2, {9, 8, 7}).write_png(path);
  const std::string bytes = read_file(path);
  EXPECT_EQ(bytes.substr(1, 3), "PNG");
  EXPECT_THAT(bytes, testing::HasSubstr("IEND"));
}

TEST(Heat, GrowsLighter) {
  int before = -1;
  for (double value : {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}) {
    const Color c = heat(value);
    EXPECT_GT(c[0] + c[1] + c[2], before);
    before = c[0] + c[1] + c[2];
  }
  EXPECT_EQ(heat(std::nan("")), (Color{128, 128, 128}));
  EXPECT_EQ(ink_on(heat(0)), kWhite);
  EXPECT_EQ(ink_on(heat(1)), kText);
}

TEST(Results, NumbersThatAreNotFiniteAreNull) {
  EXPECT_EQ(rounded(0.12345678), 0.123457);
  EXPECT_TRUE(rounded(std::nan("")).is_null());
  EXPECT_EQ(fixed_or_empty(1.25, 1, "x") + fixed_or_empty(INFINITY, 1, "x"), "x1.2");
}

TEST(Results, FieldsAreThoseOfTheForm) {
  const auto made = record("x", {"build/seer", "bench", "x", "--out", "here", "--runs=1"},
                           {{"chip", "c"}, {"threads", 1}}, {});
  EXPECT_EQ(made["command"], "seer bench x --runs=1");
  for (const auto& [key, value] : made.items()) {
    EXPECT_TRUE(record_form()["fields"].contains(key)) << key;
  }
  setenv("WORLD_SIZE", "2", 1);
  EXPECT_EQ(record("x", {"seer", "bench"}, {}, {})["command"],
            "torchrun --no-python --nproc_per_node 2 seer bench");
  unsetenv("WORLD_SIZE");
  EXPECT_EQ(slug("Intel(R) Xeon(R) CPU @ 2.0 GHz "), "intel-r-xeon-r-cpu-2-0-ghz");
}

// Records of a GPU name no threads.
TEST(Results, ThreadsThatAreNamedAreTheSame) {
  const auto path = std::filesystem::path(testing::TempDir()) / "results_test.json";
  const auto of = [](const nlohmann::json& machine) {
    return record("x", {"seer"}, machine, nlohmann::json::array({{{"len_q", 1}}}));
  };
  std::ofstream(path) << of({{"chip", "g"}});
  const auto both = appended(path, of({{"chip", "g"}}));
  EXPECT_EQ(both["rows"].size(), 1);
  EXPECT_FALSE(both.contains("threads"));
  std::ofstream(path) << of({{"chip", "c"}, {"threads", 32}});
  EXPECT_THAT([&] { appended(path, of({{"chip", "c"}, {"threads", 1}})); },
              testing::ThrowsMessage<std::runtime_error>(
                  testing::HasSubstr("has rows of other threads (32, now 1): choose")));
}

// Sequences of a step and numbers of GPUs are measurements of their own; one that is made again replaces.
TEST(Results, RowsOfOtherMeasurementsStay) {
  const auto path = std::filesystem::path(testing::TempDir()) / "appended_test.json";
  const auto of = [](int sequences, int gpus) {
    const nlohmann::json row{
        {"model", "m"}, {"len_q", 1}, {"sequences", sequences}, {"gpus", gpus}};
    return record("x", {"seer"}, {{"chip", "g"}}, nlohmann::json::array({row, row}));
  };
  std::ofstream(path) << of(1, 1);
  const auto eight = appended(path, of(8, 1));
  EXPECT_EQ(eight["rows"].size(), 4);
  std::ofstream(path) << eight;
  const auto two = appended(path, of(8, 2));
  EXPECT_EQ(two["rows"].size(), 6);
  std::ofstream(path) << two;
  EXPECT_EQ(appended(path, of(8, 1))["rows"].size(), 6);
}

}  // namespace
}  // namespace seer::report
