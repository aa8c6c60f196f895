#include "seer/io/tokenizer/normalizer.h"

#include <vector>

#include "seer/base/utf8.h"
#include "seer/io/tokenizer/pattern.h"
#include "seer/io/tokenizer/unicode_form.h"

namespace seer::io {

namespace {

constexpr const char* kNormalizers = "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip";

class SequenceNormalizer : public Normalizer {
 public:
  explicit SequenceNormalizer(const JsonNode& list) {
    for (size_t i = 0; i < list.array_size(); ++i) steps_.push_back(read_normalizer(list.at(i)));
  }
  void normalize(std::string& text) const override {
    for (const auto& step : steps_) step->normalize(text);
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> steps_;
};

class FormNormalizer : public Normalizer {
 public:
  explicit FormNormalizer(UnicodeForm form) : form_(form) {}
  void normalize(std::string& text) const override { to_unicode_form(text, form_); }

 private:
  UnicodeForm form_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string content) : content_(std::move(content)) {}
  void normalize(std::string& text) const override {
    if (!text.empty()) text.insert(0, content_);
  }

 private:
  std::string content_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  explicit ReplaceNormalizer(const JsonNode& field)
      : pattern_(read_pattern(field.at("pattern"))), content_(field.at("content").string()) {}
  void normalize(std::string& text) const override { text = replace_all(pattern_, text, content_); }

 private:
  Regex pattern_;
  std::string content_;
};

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void normalize(std::string& text) const override {
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

}  // namespace

std::unique_ptr<const Normalizer> read_normalizer(const JsonNode& field) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") return std::make_unique<SequenceNormalizer>(field.at("normalizers"));
  if (type == "NFC") return std::make_unique<FormNormalizer>(UnicodeForm::nfc);
  if (type == "NFD") return std::make_unique<FormNormalizer>(UnicodeForm::nfd);
  if (type == "NFKC") return std::make_unique<FormNormalizer>(UnicodeForm::nfkc);
  if (type == "NFKD") return std::make_unique<FormNormalizer>(UnicodeForm::nfkd);
  if (type == "Prepend") return std::make_unique<PrependNormalizer>(field.at("prepend").string());
  if (type == "Replace") return std::make_unique<ReplaceNormalizer>(field);
  if (type == "Strip") {
    return std::make_unique<StripNormalizer>(field.at("strip_left").boolean(),
                                             field.at("strip_right").boolean());
  }
  field.unsupported("normalizer", type, kNormalizers);
}

}  // namespace seer::io
