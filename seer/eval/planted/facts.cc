#include "seer/eval/planted/facts.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "seer/base/allowed.h"
#include "seer/base/error.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/io/tokenizer/words.h"

namespace seer::eval {
namespace {

// A sentence: before, the thing that it is about, between, the value, after.
struct Sentence {
  const char *before, *between, *after;
};
struct Wording {
  const char* name;
  Sentence told, asked;
  bool words = false;  // the thing is two words, the value three; else a name and five digits
};

constexpr Wording kWordings[] = {
    {"code", {"The secret code of ", " is", "."}, {"The secret code of ", " is", "."}},
    {"question",
     {"The secret code of ", " is", "."},
     {"Question: What is the secret code of ", "?\nAnswer:", "."}},
    {"phone", {"", "'s phone number is", "."}, {"Call ", " by phone: the number is", "."}},
    {"room", {"", " works in room", "."}, {"To find ", ", go to room", "."}},
    {"words", {"Remember this: ", "", "."}, {"Remember this: ", "", "."}, true},
};

constexpr const char* kNames[] = {
    "Adam",     "Alice",    "Amanda",   "Andrew", "Anna",    "Anthony",  "Barbara",  "Benjamin",
    "Brian",    "Carol",    "Charles",  "Daniel", "David",   "Deborah",  "Dennis",   "Diana",
    "Donald",   "Dorothy",  "Edward",   "Elena",  "Emily",   "Emma",     "Eric",     "Ethan",
    "Eva",      "Felix",    "Frank",    "Gary",   "George",  "Grace",    "Gregory",  "Hannah",
    "Harold",   "Helen",    "Henry",    "Isaac",  "Jack",    "Jacob",    "James",    "Janet",
    "Jason",    "Jennifer", "Jessica",  "Joan",   "John",    "Jonathan", "Joseph",   "Joshua",
    "Judith",   "Julia",    "Justin",   "Karen",  "Keith",   "Kenneth",  "Kevin",    "Larry",
    "Laura",    "Leo",      "Linda",    "Lisa",   "Louis",   "Lucas",    "Margaret", "Maria",
    "Mark",     "Martha",   "Martin",   "Mary",   "Matthew", "Melissa",  "Michael",  "Michelle",
    "Nancy",    "Nathan",   "Nicholas", "Nicole", "Oliver",  "Oscar",    "Pamela",   "Patrick",
    "Paul",     "Peter",    "Philip",   "Rachel", "Raymond", "Rebecca",  "Richard",  "Robert",
    "Roger",    "Ruth",     "Samuel",   "Sandra", "Sarah",   "Sharon",   "Simon",    "Sophia",
    "Stephen",  "Susan",    "Theresa",  "Thomas", "Timothy", "Victor",   "Victoria", "Vincent",
    "Virginia", "Walter",   "William",  "Zachary"};

const Wording& wording_named(const std::string& name) {
  for (const Wording& wording : kWordings) {
    if (name == wording.name) return wording;
  }
  throw UsageError(message("no wording ", typed(name), "; there are ", listed(wording_names())));
}

std::string text_of(const Sentence& s, const std::string& thing, const std::string& value) {
  return s.before + thing + s.between + " " + value + s.after;
}

int64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return end - a.begin();
}

// A sentence on lines of its own, and the tokens of its value.
struct Encoded {
  std::vector<int32_t> ids;
  int64_t begin, end;
};
Encoded encode(const io::Tokenizer& tokenizer, const Wording& wording, const Sentence& s,
               const std::string& thing, const std::string& value) {
  const std::string before = "\n" + std::string(s.before) + thing + s.between + " ";
  Encoded made{tokenizer.encode("\n" + text_of(s, thing, value) + "\n", false), 0, 0};
  // Of a value with its space before it either the space is a token, or the two begin with the same one.
  made.begin = common_prefix(tokenizer.encode(before, false), made.ids);
  const auto until = tokenizer.encode(before + value, false);
  made.end = common_prefix(until, made.ids);
  SEER_CHECK(made.end == static_cast<int64_t>(until.size()) && made.begin < made.end,
             "the tokenizer joins the value of ", typed(text_of(s, thing, value)),
             " with what stands beside it: choose another wording than ", wording.name);
  return made;
}

}  // namespace

std::vector<std::string> wording_names() {
  std::vector<std::string> names;
  for (const Wording& wording : kWordings) names.emplace_back(wording.name);
  return names;
}

std::string wording_help() {
  std::string help;
  for (const Wording& w : kWordings) {
    const std::string thing = w.words ? "stone river" : "Anna",
                      value = w.words ? "light paper green" : "48213";
    std::string told = text_of(w.told, thing, value), asked = text_of(w.asked, thing, value);
    std::replace(asked.begin(), asked.end(), '\n', ' ');
    help += (help.empty() ? "" : "; ") + std::string(w.name) + ": \"" + told + "\"";
    if (asked != told) help += " -> \"" + asked + "\"";
  }
  return help;
}

FactMaker::FactMaker(const io::Tokenizer& tokenizer, int64_t vocab_size,
                     std::vector<std::string> wordings)
    : tokenizer_(tokenizer), vocab_size_(vocab_size) {
  const bool words = std::any_of(wordings.begin(), wordings.end(),
                                 [](const std::string& name) { return wording_named(name).words; });
  if (words) words_ = io::word_tokens(tokenizer, vocab_size, "choose wordings of digits");
}

Fact FactMaker::make(const std::string& name, std::set<std::string>& taken, Random& random) const {
  const Wording& wording = wording_named(name);
  const auto word = [&] { return io::word_of(tokenizer_, words_[random.below(words_.size())]); };
  SEER_CHECK(static_cast<int64_t>(taken.size()) < things(name), "all ", things(name),
             " names of the wording ", name, " are asked for already: ask for fewer facts");
  std::string thing, value;
  do {
    thing = wording.words ? word() + " " + word() : kNames[random.below(std::size(kNames))];
  } while (!taken.insert(thing).second);
  if (wording.words) {
    value = word() + " " + word() + " " + word();
  } else {
    value = std::to_string(10000 + random.below(90000));
  }
  Encoded told = encode(tokenizer_, wording, wording.told, thing, value),
          asked = encode(tokenizer_, wording, wording.asked, thing, value);
  SEER_CHECK(std::equal(told.ids.begin() + told.begin, told.ids.begin() + told.end,
                        asked.ids.begin() + asked.begin, asked.ids.begin() + asked.end),
             "the tokenizer writes the value of ", typed(text_of(wording.told, thing, value)),
             " with other tokens in its question: choose another wording than ", wording.name);
  for (const auto* ids : {&told.ids, &asked.ids}) {
    io::check_token_ids(*ids, vocab_size_, "planted facts", &tokenizer_);
  }
  return {std::move(told.ids), std::move(asked.ids), told.begin, asked.begin,
          told.end - told.begin};
}

int64_t FactMaker::things(const std::string& wording) const {
  if (!wording_named(wording).words) return std::size(kNames);
  return static_cast<int64_t>(words_.size() * words_.size());
}

}  // namespace seer::eval
