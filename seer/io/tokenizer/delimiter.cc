#include "seer/io/tokenizer/delimiter.h"

#include <algorithm>
#include <vector>

namespace seer::io {

namespace {

struct Part {
  size_t begin, end;
  bool is_delimiter;
};

// All of the text, delimiters and what lies between them.
template <class Take>
void for_each_part(const Regex& delimiter, bool invert, std::string_view text, const Take& take) {
  size_t from = 0;
  delimiter.for_each(text, [&](const Match& match) {
    if (from != match.begin) take(Part{from, match.begin, invert});
    take(Part{match.begin, match.end, !invert});
    from = match.end;
  });
  if (from != text.size()) take(Part{from, text.size(), invert});
}

std::vector<Part> merge_contiguous(const std::vector<Part>& parts) {
  std::vector<Part> out;
  for (const Part& part : parts) {
    if (!out.empty() && out.back().is_delimiter == part.is_delimiter) {
      out.back().end = part.end;
    } else {
      out.push_back(part);
    }
  }
  return out;
}

// A delimiter joins the part before it, unless that is a delimiter, too.
std::vector<Part> merge_with_previous(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool after_delimiter = false;
  for (const Part& part : parts) {
    if (part.is_delimiter && !after_delimiter && !out.empty()) {
      out.back().end = part.end;
    } else {
      out.push_back(part);
    }
    after_delimiter = part.is_delimiter;
  }
  return out;
}

std::vector<Part> merge_with_next(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool before_delimiter = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->is_delimiter && !before_delimiter && !out.empty()) {
      out.back().begin = part->begin;
    } else {
      out.push_back(*part);
    }
    before_delimiter = part->is_delimiter;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

DelimiterBehavior read_delimiter_behavior(const JsonNode& field) {
  const std::string& name = field.string();
  if (name == "Removed") return DelimiterBehavior::removed;
  if (name == "Isolated") return DelimiterBehavior::isolated;
  if (name == "MergedWithPrevious") return DelimiterBehavior::merged_with_previous;
  if (name == "MergedWithNext") return DelimiterBehavior::merged_with_next;
  if (name == "Contiguous") return DelimiterBehavior::contiguous;
  field.unsupported("behavior", name,
                    "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void cut_at(const Regex& delimiter, DelimiterBehavior behavior, bool invert, std::string_view text,
            const std::function<void(const Match&)>& take) {
  const bool keeps_delimiters = behavior != DelimiterBehavior::removed;
  const auto give = [&](const Part& part) {
    if (part.begin != part.end && (keeps_delimiters || !part.is_delimiter)) {
      take({part.begin, part.end});
    }
  };
  if (behavior == DelimiterBehavior::isolated || behavior == DelimiterBehavior::removed) {
    for_each_part(delimiter, invert, text, give);
    return;
  }
  std::vector<Part> parts;
  for_each_part(delimiter, invert, text, [&](const Part& part) { parts.push_back(part); });
  switch (behavior) {
    case DelimiterBehavior::contiguous: parts = merge_contiguous(parts); break;
    case DelimiterBehavior::merged_with_previous: parts = merge_with_previous(parts); break;
    default: parts = merge_with_next(parts); break;
  }
  for (const Part& part : parts) give(part);
}

}  // namespace seer::io
