#include "seer/io/tokenizer/replacement.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/limits.h"

namespace seer::io {

Regex read_pattern(const JsonNode& field) {
  if (const auto text = field.find("String")) {
    if (text->string().empty()) text->expected("a text that is not empty");
    return Regex::literal(text->string());
  }
  if (const auto regex = field.find("Regex")) return Regex(regex->string(), regex->where());
  field.expected("{\"String\": ...} or {\"Regex\": ...}");
}

size_t TextBudget::left_of(size_t given) const {
  const size_t most = bytes_ * limits::kTextGrowth + limits::kTextGrowthFree;
  return most - std::min(most, given);
}

void check_growth(bool is_within, const std::string& where) {
  SEER_CHECK(is_within, where, " makes more than ", limits::kTextGrowth,
             " times as much text as came in; the file is damaged or hostile");
}

Replacement::Replacement(const JsonNode& step)
    : pattern_(read_pattern(step.at("pattern"))),
      content_(step.at("content").string()),
      where_(step.where()) {}

void Replacement::append(std::string& out, std::string_view text, size_t most) const {
  check_growth(text.size() <= most - out.size(), where_);
  out.append(text);
}

std::string Replacement::apply(std::string_view text, size_t most) const {
  std::string out;
  size_t from = 0;
  pattern_.for_each(text, [&](const Match& match) {
    append(out, text.substr(from, match.begin - from), most);
    append(out, content_, most);
    from = match.end;
  });
  append(out, text.substr(from), most);
  return out;
}

std::string PieceReplacement::push(std::string_view piece, bool is_last, size_t most) {
  const Replacement& r = replacement_;
  std::string out;
  text_ += piece;
  const std::string_view text = text_;
  while (search_ <= text.size()) {
    size_t settled = text.size();
    const auto match =
        is_last ? r.pattern_.find(text, search_) : r.pattern_.find_settled(text, search_, &settled);
    if (!match) {
      r.append(out, text.substr(from_, settled - from_), most);
      from_ = search_ = settled;
      break;
    }
    if (match->begin == match->end && last_end_ == match->end) {
      search_ = next_search(text, search_);
      continue;
    }
    r.append(out, text.substr(from_, match->begin - from_), most);
    r.append(out, r.content_, most);
    from_ = search_ = match->end;
    last_end_ = match->end;
  }
  if (is_last) {
    if (from_ < text.size()) r.append(out, text.substr(from_), most);
    text_.clear();
    from_ = search_ = 0;
    last_end_.reset();
  } else {
    forget_given();
  }
  return out;
}

void PieceReplacement::forget_given() {
  size_t keep = from_;
  for (size_t i = 0; i < replacement_.pattern_.looks_back() && keep > 0; ++i) {
    --keep;
    while (keep > 0 && (static_cast<unsigned char>(text_[keep]) & 0xC0) == 0x80) --keep;
  }
  text_.erase(0, keep);
  from_ -= keep;
  search_ -= keep;
  if (last_end_) last_end_ = *last_end_ >= keep ? std::optional(*last_end_ - keep) : std::nullopt;
}

}  // namespace seer::io
