#include "seer/eval/planted/planting.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/eval/planted/facts.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

constexpr uint64_t kPlantingSeed = 0x706c616e746564;
constexpr int kTries = 2000;  // to find places for a question

using Tokens = std::vector<int32_t>;

// A window that is written on; what is written stays.
class Page {
 public:
  explicit Page(const Tokens& ids)
      : ids_(ids), taken_(ids.size(), false), near_(ids.size(), false) {
    taken_[0] = true;  // BOS
  }
  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  const Tokens& ids() const { return ids_; }

  bool is_free(int64_t at, int64_t size) const {
    return at >= 0 && at + size <= this->size() && none(taken_, at, size);
  }
  // Whether a question there is apart from all others.
  bool is_apart(int64_t at, int64_t size) const { return none(near_, at, size); }
  void hold(int64_t at, int64_t size, bool held = true) {
    std::fill_n(taken_.begin() + at, size, held);
  }
  void write(int64_t at, const Tokens& piece) {
    std::copy(piece.begin(), piece.end(), ids_.begin() + at);
    hold(at, static_cast<int64_t>(piece.size()));
  }
  void mark_question(int64_t at, int64_t size) {
    const int64_t begin = std::max<int64_t>(0, at - kApart),
                  end = std::min(this->size(), at + size + kApart);
    std::fill(near_.begin() + begin, near_.begin() + end, true);
  }

 private:
  static bool none(const std::vector<bool>& marks, int64_t at, int64_t size) {
    return std::find(marks.begin() + at, marks.begin() + at + size, true) ==
           marks.begin() + at + size;
  }
  Tokens ids_;
  std::vector<bool> taken_, near_;
};

int64_t between(int64_t low, int64_t high, Random& random) {
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}

// UsageError: not two at least, each larger than the one before.
Distances distances_of(const Distances& asked, int64_t length) {
  const Distances distances =
      asked.empty() ? Distances{length / 8, length / 4, length / 2, 3 * length / 4} : asked;
  const bool ascend = std::adjacent_find(distances.begin(), distances.end(),
                                         std::greater_equal<>()) == distances.end();
  if (distances.size() < 2 || distances[0] < 1 || !ascend) {
    throw UsageError(message("distances of ", length,
                             " tokens: want two or more, each larger than the one before"));
  }
  return distances;
}

// "1024-2048", in k where these are whole.
std::string range_name(int64_t low, int64_t high) {
  const auto name = [](int64_t tokens) {
    return tokens % 1024 == 0 ? std::to_string(tokens / 1024) + "k" : std::to_string(tokens);
  };
  return name(low) + "-" + name(high);
}

std::vector<Label> points_of(const Distances& distances) {
  std::vector<Label> points;
  for (size_t i = 0; i + 1 < distances.size(); ++i) {
    points.push_back({range_name(distances[i], distances[i + 1]),
                      {{"distance", {distances[i], distances[i + 1]}}}});
  }
  return points;
}

// A piece of text and the tokens in it that are scored; where they are told, relative to its place.
struct Asked {
  Tokens piece;
  std::vector<int64_t> answer;
  struct Told {
    Tokens piece;          // empty: the text that stands there
    int64_t size, offset;  // tokens; of the scored ones in them
    int64_t first, count;  // of `answer`
  };
  std::vector<Told> told;
};

// Finds places for a question and what is told, at distances from `low` up to `high`, and writes both. Where
// the text itself is what is told, the question becomes a copy of it. False: there is no place.
bool place(Page& page, Asked asked, int64_t low, int64_t high, Random& random, Question& question) {
  const auto size = static_cast<int64_t>(asked.piece.size());
  const auto back_of = [&](const Asked::Told& told) {  // from the question to where it is told
    return between(low, high - 1, random) - asked.answer[told.first] + told.offset;
  };
  for (int t = 0; t < kTries; ++t) {
    std::vector<int64_t> back;
    int64_t least = 1;
    for (const Asked::Told& told : asked.told) {
      back.push_back(back_of(told));
      least = std::max(least, back.back() + 1);
    }
    if (least > page.size() - size) continue;
    const int64_t at = between(least, page.size() - size, random);
    if (!page.is_free(at, size) || !page.is_apart(at, size)) continue;
    page.hold(at, size);
    size_t held = 0;
    for (; held < back.size(); ++held) {
      const Asked::Told& told = asked.told[held];
      // All but the first look for another place by themselves: many would rarely be free together.
      for (int again = 0; held > 0 && again < 64 && !page.is_free(at - back[held], told.size);
           ++again) {
        back[held] = back_of(told);
      }
      if (!page.is_free(at - back[held], told.size)) break;
      page.hold(at - back[held], told.size);
    }
    if (held < back.size()) {
      for (size_t i = 0; i < held; ++i) page.hold(at - back[i], asked.told[i].size, false);
      page.hold(at, size, false);
      continue;
    }
    for (size_t i = 0; i < back.size(); ++i) {
      const Asked::Told& told = asked.told[i];
      if (told.piece.empty()) {
        const auto from = page.ids().begin() + (at - back[i]);
        asked.piece.assign(from, from + told.size);
      } else {
        page.write(at - back[i], told.piece);
      }
      for (int64_t k = 0; k < told.count; ++k) {
        question.told.push_back(at - back[i] + told.offset + k);
      }
    }
    page.write(at, asked.piece);
    page.mark_question(at, size);
    for (const int64_t a : asked.answer) question.answer.push_back(at + a);
    return true;
  }
  return false;
}

// Questions of `planted` at distances, `count` in each window: kinds and points come equally often over
// all windows, and few questions are of as many of them as they can be.
void plant(const Windows& windows, const Distances& distances, int64_t count, uint64_t seed,
           const std::function<Asked(int kind, std::set<std::string>& taken, Random&)>& ask,
           Planted& planted) {
  planted.length = windows.length;
  planted.points = points_of(distances);
  const auto points = static_cast<int64_t>(planted.points.size()),
             kinds = static_cast<int64_t>(planted.kinds.size()), round = std::lcm(points, kinds);
  int64_t index = 0;
  for (size_t w = 0; w < windows.ids.size(); ++w) {
    Random random(mix64(seed ^ kPlantingSeed), w);
    std::vector<Question> questions;
    for (int64_t i = 0; i < count; ++i, ++index) {
      Question question;
      question.point = static_cast<int>(index % points);
      question.kind = static_cast<int>((index + index / round) % kinds);
      questions.push_back(question);
    }
    // Those that fit in fewest places first.
    std::stable_sort(questions.begin(), questions.end(),
                     [](const Question& a, const Question& b) { return a.point > b.point; });
    Page page(windows.ids[w]);
    std::set<std::string> taken;
    for (Question& question : questions) {
      const int64_t low = distances[question.point], high = distances[question.point + 1];
      SEER_CHECK(place(page, ask(question.kind, taken, random), low, high, random, question),
                 windows.length, " tokens have no room for ", counted(count, "question"),
                 " at distances up to ", distances.back(),
                 ": choose fewer or shorter questions (--questions, --facts, --passages), shorter "
                 "--distances or a longer length");
    }
    planted.windows.push_back({w, page.ids(), std::move(questions)});
  }
}

Asked asked_of(const std::vector<Fact>& facts) {
  Asked asked;
  for (const Fact& fact : facts) {
    const auto begin = static_cast<int64_t>(asked.piece.size()) + fact.asked_value;
    asked.told.push_back({fact.told, static_cast<int64_t>(fact.told.size()), fact.told_value,
                          static_cast<int64_t>(asked.answer.size()), fact.value_size});
    for (int64_t k = 0; k < fact.value_size; ++k) asked.answer.push_back(begin + k);
    asked.piece.insert(asked.piece.end(), fact.asked.begin(), fact.asked.end());
  }
  return asked;
}

struct Needle {
  Question question;
  Asked asked;
  double depth;  // 0 ... 1
};

// Questions at the end of the page, in this order, their facts at the depths before them.
void place_needles(Page& page, std::vector<Needle>& needles) {
  int64_t end = page.size() + kApart;  // of the text before the questions
  for (const Needle& needle : needles) {
    end -= static_cast<int64_t>(needle.asked.piece.size()) + kApart;
  }
  int64_t at = end;
  for (Needle& needle : needles) {
    const Asked::Told& told = needle.asked.told[0];
    const int64_t room = end - told.size;
    const int64_t wanted = 1 + std::llround(needle.depth * static_cast<double>(room - 1));
    int64_t from = wanted;
    const auto fits = [&] { return from >= 1 && from <= room && page.is_free(from, told.size); };
    for (int64_t off = 1; off <= room && !fits(); ++off) {  // the free place that is nearest
      from = wanted - off;
      if (!fits()) from = wanted + off;
    }
    SEER_CHECK(fits(), "windows of ", page.size(), " tokens are too short for ", needles.size(),
               needles.size() == 1 ? " fact and its question" : " facts and their questions",
               ": choose a longer length");
    page.write(from, told.piece);
    page.write(at, needle.asked.piece);
    for (int64_t k = 0; k < told.count; ++k) {
      needle.question.told.push_back(from + told.offset + k);
      needle.question.answer.push_back(at + needle.asked.answer[k]);
    }
    at += static_cast<int64_t>(needle.asked.piece.size()) + kApart;
  }
}

}  // namespace

Planted plant_facts(const Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size,
                    const FactsSettings& settings) {
  const FactMaker maker(tokenizer, vocab_size, settings.wordings);
  Planted planted;
  std::vector<std::pair<std::string, int64_t>> kinds;
  int64_t most = 1, things = maker.things(settings.wordings[0]);
  for (const std::string& wording : settings.wordings) {
    things = std::min(things, maker.things(wording));
    for (const int64_t facts : settings.facts) {
      kinds.emplace_back(wording, facts);
      planted.kinds.push_back({wording + (facts > 1 ? " x" + std::to_string(facts) : ""),
                               {{"wording", wording}, {"facts", facts}}});
      most = std::max(most, facts);
    }
  }
  int64_t count = settings.questions;
  if (count == 0) {
    count = std::clamp<int64_t>(windows.length / (512 + 128 * (most - 1)), 1,
                                std::max<int64_t>(1, things / most));
  }
  if (count * most > things) {
    throw UsageError(message("questions for ", counted(count * most, "fact"),
                             " in a window: there are only ", counted(things, "name"),
                             " to ask for: choose fewer --questions or --facts"));
  }
  plant(
      windows, distances_of(settings.distances, windows.length), count, settings.seed,
      [&](int kind, std::set<std::string>& taken, Random& random) {
        std::vector<Fact> facts;
        for (int64_t i = 0; i < kinds[kind].second; ++i) {
          facts.push_back(maker.make(kinds[kind].first, taken, random));
        }
        return asked_of(facts);
      },
      planted);
  return planted;
}

Planted plant_copies(const Windows& windows, const CopiesSettings& settings) {
  Planted planted;
  for (const int64_t size : settings.passages) {
    planted.kinds.push_back({std::to_string(size) + " tokens", {{"passage", size}}});
  }
  const int64_t longest = *std::max_element(settings.passages.begin(), settings.passages.end());
  const Distances distances = distances_of(settings.distances, windows.length);
  if (distances[0] < longest) {
    throw UsageError(message("a passage of ", longest, " tokens cannot be pasted ", distances[0],
                             " tokens later: choose shorter --passages, --distances from ", longest,
                             " on, or a longer length"));
  }
  const int64_t count =
      settings.questions > 0
          ? settings.questions
          : std::max<int64_t>(1, windows.length / std::max<int64_t>(512, 6 * longest));
  plant(
      windows, distances, count, settings.seed,
      [&](int kind, std::set<std::string>&, Random&) {
        const int64_t size = settings.passages[kind];
        Asked asked;
        asked.piece.resize(size);
        asked.answer.resize(size - 1);
        std::iota(asked.answer.begin(), asked.answer.end(), 1);
        asked.told.push_back({{}, size, 1, 0, size - 1});
        return asked;
      },
      planted);
  return planted;
}

Planted plant_needles(const Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size,
                      const NeedlesSettings& settings) {
  const FactMaker maker(tokenizer, vocab_size, settings.wordings);
  const auto depths = static_cast<int>(settings.depths.size());
  Planted planted;
  planted.length = windows.length;
  for (const double depth : settings.depths) {
    planted.points.push_back({report::number(depth, 4) + "%", {{"depth", depth}}});
  }
  for (const std::string& wording : settings.wordings) {
    planted.kinds.push_back({wording, {{"wording", wording}}});
  }
  // The deepest first, so that a window's questions are asked in this order.
  std::vector<int> order(depths);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return settings.depths[a] > settings.depths[b]; });
  constexpr int64_t kQuestion = 32;  // tokens, about
  const int at_once =
      std::clamp<int>(static_cast<int>(windows.length / 4 / (kApart + kQuestion)), 1, depths);
  const int pages = (depths + at_once - 1) / at_once;
  for (size_t w = 0; w < windows.ids.size(); ++w) {
    Random random(mix64(settings.seed ^ kPlantingSeed), w);
    for (int first = 0; first < pages; ++first) {
      std::set<std::string> taken;
      std::vector<Needle> needles;
      for (int i = first; i < depths; i += pages) {
        Question question;
        question.point = order[i];
        question.kind = static_cast<int>((w + i) % settings.wordings.size());
        const std::string& wording = settings.wordings[question.kind];
        needles.push_back({question, asked_of({maker.make(wording, taken, random)}),
                           settings.depths[order[i]] / 100});
      }
      Page page(windows.ids[w]);
      place_needles(page, needles);
      PlantedWindow& window = planted.windows.emplace_back();
      window.text = w;
      window.ids = page.ids();
      for (Needle& needle : needles) window.questions.push_back(std::move(needle.question));
    }
  }
  return planted;
}

}  // namespace seer::eval
