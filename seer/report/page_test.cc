#include "seer/report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/report/curves.h"

namespace seer::report {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

class Page : public testing::Test {
 protected:
  Page() : folder_(fs::path(testing::TempDir()) / "page_test") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Page() override { fs::remove_all(folder_); }
  void put(const std::string& name, const std::string& text) const {
    write_file_atomic(folder_ / name, text);
  }
  json files() const { return page_data({folder_})["files"]; }
  std::string error_of_page() const {
    try {
      write_page({folder_}, folder_ / "out.html");
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  const fs::path folder_;
};

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return count;
}

// The JSON that stands in a page.
json data_in(const std::string& page) {
  const std::string before = "id=\"data\">";
  const size_t begin = page.find(before) + before.size();
  return json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

TEST_F(Page, AnEmptyFolderIsAPage) {
  EXPECT_GT(write_page({folder_}, folder_ / "out.html"), 100'000u);
  const std::string page = read_file(folder_ / "out.html");
  EXPECT_TRUE(data_in(page)["files"].empty());
  EXPECT_THAT(page, HasSubstr("Chart.js v"));
  EXPECT_THAT(page, HasSubstr("Permission is hereby granted"));
  for (const char* place : {"@style@", "@chart@", "@scripts@", "@TEXT_licence@", "@published@"}) {
    EXPECT_THAT(page, testing::Not(HasSubstr(place)));
  }
}

TEST_F(Page, KindsOfFiles) {
  put("a/results.json",
      R"({"operation": "new one", "rows": [{"x": 0.12345678912, "n": 123456789}]})");
  put("gates/heads.json", R"({"lost": [[0.5, null]], "lookup_heads": [[0]]})");
  put("gates/config.json", R"({"operation": "no", "rows": []})");
  put("gates/.hidden.json", "broken");
  put("gates/weights.safetensors.index.json", "broken");
  put(".cache/x.json", "broken");
  put("notes.txt", "broken");
  put("other.json", "[1, 2]");
  put("made.json", R"({"base": {"metrics": [{"tokens": 1, "loss": 2.0}]}})");
  const json found = files();
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0]["path"], "a/results.json");
  EXPECT_EQ(found[0]["kind"], "results");
  EXPECT_EQ(found[0]["json"]["rows"][0], json({{"x", 0.12345679}, {"n", 123456789}}));
  EXPECT_EQ(found[1]["kind"], "heads");
  EXPECT_EQ(found[2]["json"]["base"]["metrics"].size(), 1u);
  EXPECT_EQ(found[3], json({{"path", "other.json"}, {"kind", "other"}}));
  // A file alone, and several folders, whose own names then tell them apart.
  EXPECT_EQ(page_data({folder_ / "other.json"})["files"][0]["path"], "other.json");
  EXPECT_EQ(page_data({folder_ / "a", folder_ / "gates"})["files"][0]["path"], "a/results.json");
}

TEST_F(Page, StringsStayStrings) {
  const std::string hostile =
      "</script><script>alert(1)</script><!--<script> \xf0\x9f\x8c\xb2\xe2\x80\xa8";
  const json record{{"operation", hostile}, {"rows", json::array({{{"method", hostile}}})}};
  put("x.json", record.dump());
  write_page({folder_}, folder_ / "out.html");
  const std::string page = read_file(folder_ / "out.html");
  EXPECT_EQ(data_in(page)["files"][0]["json"], record);
  const size_t ends = count_of(page_html(json{{"files", json::array()}}), "</script>");
  EXPECT_EQ(count_of(page, "</script>"), ends);
  EXPECT_EQ(count_of(page, "alert(1)"), 2u);
}

TEST_F(Page, NumbersThatAreNotFinite) {
  put("x.json",
      R"({"operation": "x", "rows": [{"perplexity": NaN, "loss": -Infinity, "big": 1e999}]})");
  const json row = files()[0]["json"]["rows"][0];
  EXPECT_EQ(row["perplexity"], "NaN");
  EXPECT_EQ(row["loss"], "-Infinity");
  EXPECT_EQ(row["big"], "1e999");
}

TEST_F(Page, NothingIsWrittenWhereSomethingIsWrong) {
  put("out.html", "before");
  put("good.json", R"({"operation": "x", "rows": []})");
  put("broken.json", R"({"operation": "x", "rows": [)");
  EXPECT_THAT(error_of_page(), HasSubstr("broken.json is not valid JSON"));
  EXPECT_EQ(read_file(folder_ / "out.html"), "before");
  fs::remove(folder_ / "broken.json");
  EXPECT_EQ(error_of_page(), "no error");
  EXPECT_THROW(page_data({folder_ / "nowhere"}), Error);
  EXPECT_THROW(write_page({folder_}, folder_ / "good.json"), Error);
  EXPECT_EQ(read_file(folder_ / "good.json"), R"({"operation": "x", "rows": []})");
}

TEST_F(Page, TooMuchForAPage) {
  const json data{{"files", json::array({std::string(kPageBytes, 'x')})}};
  EXPECT_THROW(page_html(data), Error);
}

TEST_F(Page, CurvesOfARun) {
  put("run.json", R"({"task": "finetune", "loop": {"steps": 4}, "settings": {"seed": 1}})");
  put("metrics.jsonl",
      "{\"step\": 1, \"loss\": 4.0, \"gate_loss\": 1.0, \"tokens\": 10, \"seconds\": 1.5}\n"
      "{\"step\": 2, \"loss\": 1e9, \"tokens\": 20, \"skipped\": true}\n"
      "{\"step\": 2, \"valid_books\": 3.5, \"valid_skipped_books\": 0}\n"
      "{\"step\": 3, \"loss\": 2.0, \"gate_loss\": NaN, \"tokens\": 30, \"seconds\": 2.5}\n"
      "{\"step\": 4, \"loss\": 1.0, \"gate_loss\": 0.5, \"tokens\": 40, \"seconds\": 3.5}\n"
      "{\"step\": 5, \"lo");
  const json run = files()[0];
  EXPECT_EQ(run["kind"], "training");
  EXPECT_EQ(run["json"]["tokens"], json({10, 30, 40}));
  EXPECT_EQ(run["json"]["loss"], json({4.0, 2.0, 1.0}));
  EXPECT_EQ(run["json"]["gate_loss"], json({1.0, nullptr, 0.5}));
  EXPECT_EQ(run["json"]["valid"], json({{"books", {{20, 3.5}}}}));
  EXPECT_EQ(run["json"]["seconds"], 3.5);
  const json fewer = training_curves(json::object(), folder_ / "metrics.jsonl", 2);
  EXPECT_EQ(fewer["tokens"], json({30, 40}));
  EXPECT_EQ(fewer["loss"], json({3.0, 1.0}));
  put("metrics.jsonl", "{\"step\": 1}\n[]\n");
  EXPECT_THAT(error_of_page(), HasSubstr("metrics.jsonl: line 2 is no JSON object"));
}

}  // namespace
}  // namespace seer::report
