#include "seer/io/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/limits.h"
#include "seer/io/tokenizer/byte_level.h"
#include "seer/io/tokenizer/delimiter.h"
#include "seer/io/tokenizer/metaspace.h"
#include "seer/io/tokenizer/replacement.h"
#include "seer/io/tokenizer/step_count.h"

namespace seer::io {

namespace {

constexpr const char* kPreTokenizers = "Sequence, Split, ByteLevel, Metaspace, Digits";

// What ByteLevel splits by where its use_regex is on (GPT-2).
constexpr const char* kByteLevelRegex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class CutPreTokenizer : public PreTokenizer {
 public:
  CutPreTokenizer(Regex delimiter, DelimiterBehavior behavior, bool invert)
      : delimiter_(std::move(delimiter)), behavior_(behavior), invert_(invert) {}

  void split(std::string_view text, bool at_start, const Take& take) const override {
    cut_at(delimiter_, behavior_, invert_, text, [&](const Match& part) {
      take(text.substr(part.begin, part.end - part.begin), at_start && part.begin == 0);
    });
  }

 private:
  Regex delimiter_;
  DelimiterBehavior behavior_;
  bool invert_;
};

// The part of ByteLevel before bytes become characters.
class ByteLevelPreTokenizer : public PreTokenizer {
 public:
  explicit ByteLevelPreTokenizer(const JsonNode& field)
      : add_prefix_space_(field.at("add_prefix_space").boolean()) {
    if (field.boolean_or("use_regex", true)) regex_.emplace(kByteLevelRegex, field.where());
  }

  void split(std::string_view text, bool at_start, const Take& take) const override {
    std::string prefixed;
    if (add_prefix_space_ && text.front() != ' ') {
      prefixed.append(" ").append(text);
      text = prefixed;
    }
    if (!regex_) return take(text, at_start);
    cut_at(*regex_, DelimiterBehavior::isolated, false, text, [&](const Match& part) {
      take(text.substr(part.begin, part.end - part.begin), at_start && part.begin == 0);
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Regex> regex_;
};

class ByteCharacters : public PreTokenizer {
 public:
  void split(std::string_view text, bool at_start, const Take& take) const override {
    take(bytes_to_characters(text), at_start);
  }
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(const JsonNode& field)
      : settings_(read_metaspace(field)), delimiter_(Regex::literal(settings_.replacement)) {}

  void split(std::string_view text, bool at_start, const Take& take) const override {
    std::string replaced;
    const bool wants_prefix = settings_.prepend == MetaspaceSettings::Prepend::always ||
                              (settings_.prepend == MetaspaceSettings::Prepend::first && at_start);
    if (wants_prefix && text.front() != ' ' && !text.starts_with(settings_.replacement)) {
      replaced = settings_.replacement;
    }
    for (const char c : text) c == ' ' ? replaced += settings_.replacement : replaced += c;
    if (!settings_.split) return take(replaced, at_start);
    const std::string_view view = replaced;
    cut_at(delimiter_, DelimiterBehavior::merged_with_next, false, view, [&](const Match& part) {
      take(view.substr(part.begin, part.end - part.begin), at_start && part.begin == 0);
    });
  }

 private:
  MetaspaceSettings settings_;
  Regex delimiter_;
};

class SequencePreTokenizer : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<const PreTokenizer>> steps)
      : steps_(std::move(steps)) {}

  void split(std::string_view text, bool at_start, const Take& take) const override {
    run(0, text, at_start, take);
  }

 private:
  void run(size_t step, std::string_view text, bool at_start, const Take& take) const {
    if (step == steps_.size()) return take(text, at_start);
    if (step + 1 == steps_.size()) return steps_[step]->split(text, at_start, take);
    steps_[step]->split(text, at_start, [&](std::string_view word, bool word_at_start) {
      run(step + 1, word, word_at_start, take);
    });
  }

  std::vector<std::unique_ptr<const PreTokenizer>> steps_;
};

std::unique_ptr<const PreTokenizer> read_split(const JsonNode& field) {
  return std::make_unique<CutPreTokenizer>(read_pattern(field.at("pattern")),
                                           read_delimiter_behavior(field.at("behavior")),
                                           field.boolean_or("invert", false));
}

// Appends the steps of `field`, Sequences flattened.
void append_steps(const JsonNode& field, StepCount& count,
                  std::vector<std::unique_ptr<const PreTokenizer>>& steps) {
  count.add(field);
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    const JsonNode list = field.at("pretokenizers");
    for (size_t i = 0; i < list.array_size(); ++i) append_steps(list.at(i), count, steps);
  } else if (type == "ByteLevel") {
    steps.push_back(std::make_unique<ByteLevelPreTokenizer>(field));
    steps.push_back(std::make_unique<ByteCharacters>());
  } else if (type == "Split") {
    steps.push_back(read_split(field));
  } else if (type == "Metaspace") {
    steps.push_back(std::make_unique<MetaspacePreTokenizer>(field));
  } else if (type == "Digits") {
    const bool individual = field.at("individual_digits").boolean();
    steps.push_back(std::make_unique<CutPreTokenizer>(
        Regex(R"(\p{N})", field.where()),
        individual ? DelimiterBehavior::isolated : DelimiterBehavior::contiguous, false));
  } else {
    field.unsupported("pre-tokenizer", type, kPreTokenizers);
  }
}

}  // namespace

PreTokenizerPlan read_pre_tokenizer(const JsonNode& field) {
  std::vector<std::unique_ptr<const PreTokenizer>> steps;
  StepCount count;
  append_steps(field, count, steps);
  // Each makes up to two bytes of one.
  const auto growing = std::count_if(steps.begin(), steps.end(), [](const auto& step) {
    return dynamic_cast<const ByteCharacters*>(step.get()) != nullptr;
  });
  SEER_CHECK(growing <= limits::kByteLevelSteps, field.where(), " has ", growing,
             " steps of the type ByteLevel, at most ", limits::kByteLevelSteps,
             " are read; the file is damaged or hostile");
  PreTokenizerPlan plan;
  if (!steps.empty() && dynamic_cast<const ByteCharacters*>(steps.back().get())) {
    steps.pop_back();
    plan.is_byte_level = true;
  }
  if (steps.size() == 1) {
    plan.split = std::move(steps.front());
  } else if (!steps.empty()) {
    plan.split = std::make_unique<SequencePreTokenizer>(std::move(steps));
  }
  return plan;
}

}  // namespace seer::io
