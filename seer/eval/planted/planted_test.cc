// Planted windows as they were asked for, and scores that are known.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "seer/base/error.h"
#include "seer/eval/planted/facts.h"
#include "seer/eval/planted/planting.h"
#include "seer/eval/planted/score.h"
#include "seer/eval/planted/table.h"
#include "seer/eval/testing/identity_model.h"
#include "seer/models/testing/test_model.h"

namespace seer::eval {
namespace {

using Tokens = std::vector<int32_t>;

const io::Tokenizer& tokenizer() {
  static const io::Tokenizer loaded =
      io::Tokenizer::load(std::filesystem::path(SEER_SOURCE_DIR) / "assets" / "reference");
  return loaded;
}

// Windows whose tokens tell where they stand: no planted text has ids from 100,000 on.
Windows plain(int64_t length, int count = 2) {
  Windows windows{.length = length, .ids = {}};
  for (int w = 0; w < count; ++w) {
    Tokens& ids = windows.ids.emplace_back();
    for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(100'000 + i));
  }
  return windows;
}

Planted facts(int64_t length, const FactsSettings& settings, int windows = 2) {
  return plant_facts(plain(length, windows), tokenizer(), tokenizer().vocab_size(), settings);
}

std::string text_at(const PlantedWindow& window, const std::vector<int64_t>& positions) {
  Tokens ids;
  for (const int64_t at : positions) ids.push_back(window.ids[static_cast<size_t>(at)]);
  return tokenizer().decode(ids, false);
}

// Of every question: the answer stands where it is told, too, and at a distance that was asked for.
void check_answers(const Planted& planted, const Distances& distances) {
  for (const PlantedWindow& window : planted.windows) {
    ASSERT_EQ(window.ids.size(), static_cast<size_t>(planted.length));
    EXPECT_EQ(window.ids[0], 100'000) << "the first token stays";
    for (const Question& q : window.questions) {
      ASSERT_EQ(q.answer.size(), q.told.size());
      EXPECT_EQ(text_at(window, q.answer), text_at(window, q.told));
      EXPECT_TRUE(std::is_sorted(q.answer.begin(), q.answer.end()));
      if (distances.empty()) continue;
      const auto point = static_cast<size_t>(q.point);
      for (size_t k = 0; k < q.answer.size(); ++k) {
        EXPECT_GE(q.answer[k] - q.told[k], distances[point]);
        EXPECT_LT(q.answer[k] - q.told[k], distances[point + 1]);
      }
    }
  }
}

void expect_apart(const PlantedWindow& window) {
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const Question& q : window.questions) spans.emplace_back(q.answer.front(), q.answer.back());
  std::sort(spans.begin(), spans.end());
  for (size_t i = 1; i < spans.size(); ++i) {
    EXPECT_GE(spans[i].first - spans[i - 1].second, kApart);
  }
}

TEST(FactMaker, KnowsWhereTheValueIs) {
  const FactMaker maker(tokenizer(), tokenizer().vocab_size(), wording_names());
  const auto cut = [](const Tokens& ids, int64_t begin, int64_t size) {
    return tokenizer().decode(Tokens(ids.begin() + begin, ids.begin() + begin + size), false);
  };
  for (const std::string& name : wording_names()) {
    std::set<std::string> taken;
    Random random(7);
    for (int i = 0; i < 20; ++i) {
      const Fact fact = maker.make(name, taken, random);
      const std::string told = cut(fact.told, fact.told_value, fact.value_size),
                        asked = cut(fact.asked, fact.asked_value, fact.value_size);
      EXPECT_EQ(told, asked);
      if (name == "words") {
        EXPECT_THAT(told, testing::MatchesRegex(" [a-z]+ [a-z]+ [a-z]+"));
        EXPECT_EQ(fact.value_size, 3);
      } else {
        // Their number is the tokenizer's affair: this one joins some digits.
        EXPECT_THAT(told, testing::MatchesRegex("[0-9][0-9][0-9][0-9][0-9]"));
      }
      EXPECT_THAT(tokenizer().decode(fact.told, false), testing::HasSubstr(told));
    }
    EXPECT_EQ(taken.size(), 20u) << "each is about something else";
  }
  EXPECT_THROW(FactMaker(tokenizer(), 50, {"words"}), Error);
  EXPECT_THROW(FactMaker(tokenizer(), 50, {"riddle"}), UsageError);
  std::set<std::string> taken;
  Random random(1);
  const FactMaker small(tokenizer(), 50, {"code"});
  EXPECT_THROW(small.make("code", taken, random), Error) << "tokens that the model has not";
  for (int i = 0; i < 1000; ++i) taken.insert(std::to_string(i));
  EXPECT_THROW(maker.make("code", taken, random), Error) << "no names are left";
}

TEST(PlantedFacts, AreAskedForAtTheDistancesAskedFor) {
  const Distances distances{100, 400, 900};
  const Planted planted = facts(
      2048,
      {.wordings = {"code", "words"}, .facts = {1, 3}, .distances = distances, .questions = 4},
      /*windows=*/4);
  check_answers(planted, distances);
  std::map<std::pair<int, int>, int> times;
  for (const PlantedWindow& window : planted.windows) {
    EXPECT_EQ(window.questions.size(), 4u);
    expect_apart(window);
    for (const Question& q : window.questions) ++times[{q.kind, q.point}];
  }
  EXPECT_EQ(times.size(), 8u);
  for (const auto& [kind, count] : times) EXPECT_EQ(count, 2) << "all kinds come equally often";
  ASSERT_EQ(planted.kinds.size(), 4u);
  EXPECT_EQ(planted.kinds[3].name, "words x3");
  for (const PlantedWindow& window : planted.windows) {
    for (const Question& q : window.questions) {
      if (q.kind == 3) EXPECT_EQ(q.answer.size(), 9u) << "three words of three facts";
    }
  }
  EXPECT_EQ(planted.points[1].fields["distance"], (nlohmann::json{400, 900}));
}

TEST(PlantedFacts, AreTheSameForTheSameSeed) {
  const auto ids = [](uint64_t seed, int windows) {
    return facts(1024, {.seed = seed}, windows).windows[0].ids;
  };
  EXPECT_EQ(ids(1, 1), ids(1, 3)) << "whatever other windows there are";
  EXPECT_NE(ids(1, 1), ids(2, 1));
}

TEST(PlantedFacts, ByDefaultGoByTheLength) {
  const Planted planted = facts(8192, {}, 1);
  EXPECT_EQ(planted.windows[0].questions.size(), 16u);
  check_answers(planted, {1024, 2048, 4096, 6144});
  EXPECT_EQ(planted.points[0].name, "1k-2k");
  check_answers(facts(512, {}, 1), {64, 128, 256, 384});
  // Long windows have no more questions than there are names.
  const size_t most = facts(65536, {}, 1).windows[0].questions.size();
  EXPECT_GT(most, 64u);
  EXPECT_LT(most, 128u);
  EXPECT_EQ(facts(65536, {.facts = {4}}, 1).windows[0].questions.size(), most / 4);
  EXPECT_EQ(facts(65536, {.wordings = {"words"}}, 1).windows[0].questions.size(), 128u);
}

TEST(PlantedFacts, OfAnyNumberFitByDefault) {
  for (const int64_t length : {1024, 8192}) {
    for (const int64_t facts_each : {2, 8, 16, 32}) {
      if (facts_each * 32 > length / 8) continue;  // no room in the shortest distances
      const Planted planted =
          facts(length, {.wordings = {"question", "words"}, .facts = {facts_each}}, 4);
      check_answers(planted, {length / 8, length / 4, length / 2, 3 * length / 4});
      for (const PlantedWindow& window : planted.windows) expect_apart(window);
    }
  }
}

TEST(PlantedFacts, AreOfAllKindsWhereQuestionsAreFew) {
  const Planted planted =
      facts(2048, {.wordings = {"code", "words"}, .facts = {1, 2}, .questions = 2}, 2);
  std::set<int> kinds, points;
  for (const PlantedWindow& window : planted.windows) {
    for (const Question& q : window.questions) {
      kinds.insert(q.kind);
      points.insert(q.point);
    }
  }
  EXPECT_EQ(kinds.size(), 4u);
  EXPECT_EQ(points.size(), 3u);
}

TEST(PlantedFacts, ThatDoNotFitAreAnError) {
  EXPECT_THROW(facts(1024, {.questions = 12}), Error);
  EXPECT_THROW(facts(1024, {.distances = {512, 1100}, .questions = 64}), Error);
  EXPECT_THROW(facts(8192, {.facts = {32}, .questions = 9}), UsageError) << "too few names";
  EXPECT_THROW(facts(1024, {.distances = {512, 512}}), UsageError);
}

TEST(PlantedCopies, RepeatPassagesOfTheText) {
  const Distances distances{200, 500, 1000};
  const Planted planted =
      plant_copies(plain(4096), {.passages = {32, 128}, .distances = distances, .questions = 5});
  check_answers(planted, distances);
  for (const PlantedWindow& window : planted.windows) {
    expect_apart(window);
    for (const Question& q : window.questions) {
      const int64_t size = q.kind == 0 ? 32 : 128;
      ASSERT_EQ(q.answer.size(), static_cast<size_t>(size - 1)) << "all but the first";
      EXPECT_EQ(window.ids[q.told[0] - 1], window.ids[q.answer[0] - 1]) << "which is copied, too";
      for (const int64_t at : q.told) EXPECT_EQ(window.ids[at], 100'000 + at) << "as it was";
    }
  }
  for (const int64_t size : {2, 32, 64}) {  // by default as many as fit
    EXPECT_EQ(plant_copies(plain(8192), {.passages = {size}}).windows[0].questions.size(), 16u);
  }
  EXPECT_EQ(plant_copies(plain(8192), {}).windows[0].questions.size(), 7u);
  EXPECT_THROW(plant_copies(plain(4096), {.passages = {256}, .distances = {200, 500}}), UsageError);
  EXPECT_THROW(plant_copies(plain(1024), {.passages = {100}, .questions = 9}), Error);
}

TEST(PlantedNeedles, StandAtTheirDepthsAndAreAskedForAtTheEnd) {
  const std::vector<double> depths{0, 50, 100};
  const auto needles = [&](int64_t length) {
    return plant_needles(plain(length), tokenizer(), tokenizer().vocab_size(),
                         {.wordings = {"words"}, .depths = depths});
  };
  const Planted planted = needles(4096);
  check_answers(planted, {});
  ASSERT_EQ(planted.windows.size(), 2u) << "all depths in one window";
  for (const PlantedWindow& window : planted.windows) {
    expect_apart(window);
    ASSERT_EQ(window.questions.size(), 3u);
    const auto &deepest = window.questions[0], &first = window.questions[2];
    EXPECT_EQ(deepest.point, 2) << "the deepest is asked for first";
    EXPECT_LT(deepest.answer[0], first.answer[0]);
    const int64_t end = deepest.answer[0] - 8;  // about: of the text before the questions
    EXPECT_LT(first.told[0], 32);
    EXPECT_NEAR(window.questions[1].told[0], end / 2, 32);
    EXPECT_NEAR(deepest.told[0], end, 32);
    EXPECT_GT(first.answer.back(), 4096 - 8);
  }
  // In short windows one after another, so that the questions are no large part of them.
  EXPECT_EQ(needles(1024).windows.size(), 2 * 3u);
  EXPECT_EQ(needles(1024).windows[4].text, 1u);
  EXPECT_THROW(needles(20), Error);
}

TEST(Outcomes, AreOfTheTokensBeforeTheAnswers) {
  const models::Decoder model = test::identity_model(5);
  const PlantedWindow window{7, {0, 1, 2, 3, 4, 2}, {{1, 2, {2, 3}, {}}, {0, 0, {5}, {}}}};
  at::Tensor hidden = at::zeros({6, 5});
  hidden[1][2] = 3;  // says 2, which is right
  hidden[2][1] = 2;  // says 1 instead of 3
  hidden[4][2] = 1;  // right
  const auto outcomes = outcomes_of(model, hidden, window);
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].text, 7u);
  EXPECT_EQ(outcomes[0].kind, 1);
  EXPECT_EQ(outcomes[0].point, 2);
  EXPECT_EQ(outcomes[0].top1, 0.5);
  EXPECT_EQ(outcomes[0].exact, 0);
  const double first = std::log(4 + std::exp(3)) - 3, second = std::log(4 + std::exp(2));
  EXPECT_NEAR(outcomes[0].loss, (first + second) / 2, 1e-6);
  EXPECT_EQ(outcomes[1].top1, 1);
  EXPECT_EQ(outcomes[1].exact, 1);
  EXPECT_NEAR(outcomes[1].loss, std::log(4 + std::exp(1)) - 1, 1e-6);
}

TEST(Answers, AreThoseOfTheLogitsOfAWholePass) {
  const models::Decoder model = models::test::small_model();
  Planted planted{.length = 200, .points = {{"a", {}}}, .kinds = {{"b", {}}}, .windows = {}};
  for (uint64_t w = 0; w < 2; ++w) {
    planted.windows.push_back(
        {w, models::test::some_ids(200, w), {{0, 0, {40, 41}, {}}, {0, 0, {199}, {}}}});
  }
  Method all_blocks{.dense = false, .sparse = {}};
  all_blocks.sparse.method = "streaming";
  all_blocks.sparse.selection.strength = {1};
  int told = 0;
  PlantedWatch watch;
  watch.row = [&](const PlantedRow&) { ++told; };
  const auto rows = answer(model, nullptr, {{}, all_blocks}, planted, watch);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(told, 2);
  EXPECT_EQ(rows[0].method, "dense");
  EXPECT_EQ(rows[1].density, 1);
  for (size_t w = 0; w < 2; ++w) {
    const at::NoGradGuard no_grad;
    const auto& ids = planted.windows[w].ids;
    const at::Tensor hidden =
        model.hidden(ids_of(ids, at::kCPU), {{200}, {200}, 0}, models::dense_attention);
    const at::Tensor log_p = at::log_softmax(model.logits(hidden).to(at::kFloat), 1);
    const auto nll = [&](int64_t at) { return -log_p[at - 1][ids[at]].item<double>(); };
    for (const PlantedRow& row : rows) {  // with all blocks sparse attention is dense
      EXPECT_NEAR(row.outcomes[2 * w].loss, (nll(40) + nll(41)) / 2, 1e-3);
      EXPECT_NEAR(row.outcomes[2 * w + 1].loss, nll(199), 1e-3);
    }
  }
  // Stopped in the second window: rows are of the first.
  int passes = 0;
  watch.pass = [&] { ++passes; };
  watch.stop = [&] { return passes == 2; };
  const auto stopped = answer(model, nullptr, {{}, all_blocks}, planted, watch);
  ASSERT_EQ(stopped.size(), 2u);
  EXPECT_EQ(stopped[0].windows, 1);
  EXPECT_EQ(stopped[0].outcomes.size(), 2u);
}

TEST(Score, TakesTheQuestionsOfATextTogether) {
  PlantedRow row, dense;
  const double ours[] = {1, 0, 1, 1}, theirs[] = {1, 1, 1, 0.5};
  for (size_t i = 0; i < 4; ++i) {
    const int kind = static_cast<int>(i % 2);
    row.outcomes.push_back({i / 2, kind, 0, ours[i], ours[i], 1});
    dense.outcomes.push_back({i / 2, kind, 0, theirs[i], 0, 2});
  }
  const Score all = score(row, &dense);
  EXPECT_EQ(all.questions, 4);
  EXPECT_EQ(all.top1.value, 0.75);
  // Sums of deviations: -0.5 and 0.5 of the two texts.
  EXPECT_NEAR(all.top1.error, std::sqrt(2 * (0.25 + 0.25)) / 4, 1e-12);
  EXPECT_EQ(all.top1_gain.value, -0.125);  // 0, -1, 0, 0.5
  EXPECT_NEAR(all.top1_gain.error, std::sqrt(2 * (0.75 * 0.75 + 0.75 * 0.75)) / 4, 1e-12);
  EXPECT_EQ(all.loss_gain.value, -1);
  EXPECT_EQ(all.loss_gain.error, 0);
  const Score first = score(row, nullptr, 0);
  EXPECT_EQ(first.questions, 2);
  EXPECT_EQ(first.top1.value, 1);
  EXPECT_TRUE(std::isnan(first.top1_gain.value));
  row.outcomes.resize(2);
  EXPECT_TRUE(std::isnan(score(row, &dense).top1.error)) << "of one text";
  EXPECT_EQ(score(row, &dense).top1_gain.value, -0.5) << "on the questions that both have";
  EXPECT_TRUE(std::isnan(score(row, nullptr, kAll, 5).top1.value));
}

TEST(PlantedLines, ShowEachKindAndPoint) {
  Planted planted{
      .length = 64,
      .points = {{"1k-2k", {{"distance", {1024, 2048}}}}, {"2k-4k", {{"distance", {2048, 4096}}}}},
      .kinds = {{"code", {{"wording", "code"}}}, {"words", {{"wording", "words"}}}},
      .windows = {}};
  PlantedRow dense, sparse;
  dense.method = "dense";
  dense.length = sparse.length = 64;
  dense.outcomes = {{0, 0, 0, 1, 1, 0.5}, {1, 1, 1, 0.5, 0, 1}};
  sparse.method = "seer";
  sparse.setting = {"nz_ratio", 0.1};
  sparse.outcomes = {{0, 0, 0, 0.25, 0, 2}, {1, 1, 1, NAN, 0, NAN}};
  Method by_gates{.dense = false, .sparse = {}};
  by_gates.sparse.selection.strength = {0.1};
  PlantedLines lines({{}, by_gates}, planted);
  EXPECT_THAT(lines.head(), testing::ContainsRegex("asked +top-1 .* 1k-2k +2k-4k"));
  EXPECT_THAT(lines.lines(dense), testing::ContainsRegex("dense .* all +0.750 .* 1.000 +0.500\n"));
  const std::string text = lines.lines(sparse);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_THAT(text, testing::ContainsRegex("code +0.250 .* -0.750 "));

  const std::vector<Answered> all{{planted, {dense, sparse}}};
  const auto json = to_json(all);
  EXPECT_EQ(json[1]["sparsity"], 0.9);
  EXPECT_EQ(json[1]["cells"].size(), 2u);
  EXPECT_EQ(json[1]["cells"][0]["wording"], "code");
  EXPECT_EQ(json[1]["cells"][0]["distance"], (nlohmann::json{1024, 2048}));
  EXPECT_EQ(json[1]["cells"][0]["minus_dense"]["top1"], -0.75);
  EXPECT_FALSE(json[0].contains("minus_dense"));
  EXPECT_TRUE(json[1]["loss"].is_null());
  EXPECT_THAT(trouble(all), testing::HasSubstr("seer at sparsity 0.9, 64 tokens is not a finite "
                                               "number for 1 of 2 questions"));
}

}  // namespace
}  // namespace seer::eval
