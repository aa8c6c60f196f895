#include "seer/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/limits.h"

namespace seer {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string problem_of(std::string_view text) {
  std::string problem;
  EXPECT_TRUE(parse_json(text, &problem).is_discarded()) << text.substr(0, 80);
  return problem;
}

json parsed(std::string_view text) {
  std::string problem;
  const json value = parse_json(text, &problem);
  EXPECT_FALSE(value.is_discarded()) << problem;
  return value;
}

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ParseJson, SaysWhereItStops) {
  EXPECT_THAT(problem_of("{\"a\": }"), HasSubstr("not valid JSON at byte 7"));
  EXPECT_THAT(problem_of(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem_of("{} x"), HasSubstr("not valid JSON at byte 4"));
  EXPECT_THAT(problem_of("\"\xFF\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem_of("{\"a\": NaN, \"b\": }"), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem_of("[1e999-]"), HasSubstr("not valid JSON"));
}

TEST(ParseJson, RefusesDeepNestingWithoutRecursion) {
  const auto lists = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(parsed(lists(limits::kJsonDepth)).is_array());
  EXPECT_THAT(problem_of(lists(limits::kJsonDepth + 1)), HasSubstr("nested deeper than 256"));
  EXPECT_THAT(problem_of(lists(2000000)), HasSubstr("nested deeper"));
  EXPECT_THAT(problem_of(std::string(2000000, '[')), HasSubstr("nested deeper"));
  // Brackets in strings are text.
  EXPECT_EQ(parsed("[\"" + std::string(1000, '[') + "\\\"[\"]").size(), 1u);
}

TEST(ParseJson, KeepsNumbersThatNoDoubleHoldsAsStrings) {
  const json value = parsed(
      R"({"a": NaN, "b": [-Infinity, Infinity, 1e999, -1E+999], "NaN": "NaN, 1e999", "c": 1.5, "d": -3})");
  EXPECT_EQ(
      value,
      json::parse(
          R"({"a": "NaN", "b": ["-Infinity", "Infinity", "1e999", "-1E+999"], "NaN": "NaN, 1e999", "c": 1.5, "d": -3})"));
  EXPECT_EQ(parsed(std::string(400, '9')), std::string(400, '9'));
  // Read as a number they are an error, not a default.
  EXPECT_THAT(error_of([&] { JsonNode(value, "f.json").number_or("a", 0, 1, 0.5); }),
              HasSubstr("f.json: a is \"NaN\", expected a number from 0 to 1"));
}

TEST(JsonText, WritesStringsThatAreNotUtf8) {
  const json value = {{"path", "caf\xE9"}};
  EXPECT_EQ(json_text(value), "{\"path\":\"caf\xEF\xBF\xBD\"}");
  EXPECT_EQ(json_text(nlohmann::ordered_json(7), 2), "7");
}

TEST(ReadJson, NamesTheFile) {
  const auto path = std::filesystem::temp_directory_path() / "seer_json_test.json";
  write_file_atomic(path, "{\"a\": [1, 2}");
  EXPECT_THAT(error_of([&] { read_json(path); }),
              testing::AllOf(HasSubstr(path.string()), HasSubstr("not valid JSON at byte 12")));
  write_file_atomic(path, "\xEF\xBB\xBF{\"a\": 1}");
  EXPECT_EQ(read_json(path)["a"], 1);
  std::filesystem::remove(path);
  EXPECT_THAT(error_of([&] { read_json(path); }), HasSubstr("cannot open"));
}

TEST(JsonNode, ChecksTypesAndRanges) {
  const json value = json::parse(
      R"({"i": 3, "f": 32.0, "g": 2.5, "big": 18446744073709551615, "huge": 1e300, "s": "x\u001b", "o": {"l": [1, "a"]}, "n": null})");
  const JsonNode node(value, "c.json");
  EXPECT_EQ(node.at("i").integer(0, 3), 3);
  EXPECT_EQ(node.at("f").integer(0, 100), 32);
  EXPECT_EQ(node.integer_or("n", 0, 1, 7), 7);
  EXPECT_EQ(node.integer_or("missing", 0, 1, 8), 8);
  EXPECT_EQ(node.at("g").number(0, 3), 2.5);
  EXPECT_EQ(node.string_or("s", ""), "x\x1b");
  EXPECT_FALSE(node.has("n"));
  EXPECT_TRUE(node.at("n").is_null());
  const auto wrong = [&](const char* key) {
    return error_of([&] { node.at(key).integer(0, 1000); });
  };
  EXPECT_EQ(wrong("g"), "c.json: g is 2.5, expected a whole number from 0 to 1000");
  EXPECT_THAT(wrong("big"), HasSubstr("is 18446744073709551615, expected"));
  EXPECT_THAT(wrong("huge"), HasSubstr("is 1e+300, expected"));
  EXPECT_THAT(wrong("s"), HasSubstr("is \"x\\u001b\", expected"));
  EXPECT_EQ(error_of([&] { node.at("none"); }), "c.json: \"none\" is missing");
  EXPECT_EQ(error_of([&] { node.at("o").at("none"); }), "c.json: o has no \"none\"");
  EXPECT_EQ(error_of([&] { node.at("o").at("l").at(1).boolean(); }),
            "c.json: o.l[1] is \"a\", expected true or false");
  EXPECT_EQ(error_of([&] { node.at("o").at("l").at(2); }), "c.json: o.l has 2 elements, want more");
  EXPECT_EQ(error_of([&] { JsonNode(value["i"], "c.json").at("x"); }),
            "c.json: found 3, expected an object");
}

}  // namespace
}  // namespace seer
