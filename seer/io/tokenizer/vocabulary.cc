#include "seer/io/tokenizer/vocabulary.h"

#include "seer/base/error.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"

namespace seer::io {

Vocabulary::Vocabulary(const JsonNode& field) {
  if (!field.json().is_object()) field.expected("an object of token: id");
  ids_.reserve(field.json().size());
  for (const auto& [token, value] : field.json().items()) {
    const JsonNode entry(value, field.where());
    const auto id = static_cast<size_t>(entry.integer(0, limits::kTokenId));
    const auto [it, is_new] = ids_.emplace(token, static_cast<int32_t>(id));
    if (id >= tokens_.size()) tokens_.resize(id + 1);
    SEER_CHECK(!tokens_[id], field.where(), " gives the id ", id, " to both ", shown(*tokens_[id]),
               " and ", shown(token));
    tokens_[id] = &it->first;
  }
}

}  // namespace seer::io
