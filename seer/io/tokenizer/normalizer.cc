#include "seer/io/tokenizer/normalizer.h"

#include <vector>

#include "seer/base/utf8.h"
#include "seer/io/tokenizer/replacement.h"
#include "seer/io/tokenizer/step_count.h"
#include "seer/io/tokenizer/unicode_form.h"

namespace seer::io {

namespace {

constexpr const char* kNormalizers = "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip";

class FormNormalizer : public NormalizeStep {
 public:
  explicit FormNormalizer(UnicodeForm form) : form_(form) {}
  void apply(std::string& text, size_t) const override { to_unicode_form(text, form_); }

 private:
  UnicodeForm form_;
};

class PrependNormalizer : public NormalizeStep {
 public:
  explicit PrependNormalizer(const JsonNode& field)
      : content_(field.at("prepend").string()), where_(field.where()) {}
  void apply(std::string& text, size_t most) const override {
    if (text.empty()) return;
    check_growth(text.size() + content_.size() <= most, where_);
    text.insert(0, content_);
  }

 private:
  std::string content_, where_;
};

class ReplaceNormalizer : public NormalizeStep {
 public:
  explicit ReplaceNormalizer(const JsonNode& field) : replacement_(field) {}
  void apply(std::string& text, size_t most) const override {
    text = replacement_.apply(text, most);
  }

 private:
  Replacement replacement_;
};

class StripNormalizer : public NormalizeStep {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text, size_t) const override {
    size_t begin = text.size(), end = 0;
    for (size_t pos = 0; pos < text.size();) {
      const size_t at = pos;
      if (is_white_space(next_code_point(text, pos))) continue;
      begin = std::min(begin, at);
      end = pos;
    }
    if (right_) text.erase(std::max(begin, end));
    if (left_) text.erase(0, begin);
  }

 private:
  bool left_, right_;
};

using Steps = std::vector<std::unique_ptr<const NormalizeStep>>;

// Appends the steps of `field`, Sequences flattened.
void append_steps(const JsonNode& field, StepCount& count, Steps& steps) {
  count.add(field);
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    const JsonNode list = field.at("normalizers");
    for (size_t i = 0; i < list.array_size(); ++i) append_steps(list.at(i), count, steps);
  } else if (type == "NFC") {
    steps.push_back(std::make_unique<FormNormalizer>(UnicodeForm::nfc));
  } else if (type == "NFD") {
    steps.push_back(std::make_unique<FormNormalizer>(UnicodeForm::nfd));
  } else if (type == "NFKC") {
    steps.push_back(std::make_unique<FormNormalizer>(UnicodeForm::nfkc));
  } else if (type == "NFKD") {
    steps.push_back(std::make_unique<FormNormalizer>(UnicodeForm::nfkd));
  } else if (type == "Prepend") {
    steps.push_back(std::make_unique<PrependNormalizer>(field));
  } else if (type == "Replace") {
    steps.push_back(std::make_unique<ReplaceNormalizer>(field));
  } else if (type == "Strip") {
    steps.push_back(std::make_unique<StripNormalizer>(field.at("strip_left").boolean(),
                                                      field.at("strip_right").boolean()));
  } else {
    field.unsupported("normalizer", type, kNormalizers);
  }
}

}  // namespace

Normalizer::Normalizer(const std::optional<JsonNode>& field) {
  StepCount count;
  if (field) append_steps(*field, count, steps_);
}

void Normalizer::normalize(std::string& text) const {
  const size_t most = TextBudget(text.size()).left_of(0);
  for (const auto& step : steps_) step->apply(text, most);
}

}  // namespace seer::io
