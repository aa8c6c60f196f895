#pragma once
// Tokens and their ids.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seer/base/json.h"

namespace seer::io {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

class Vocabulary {
 public:
  // An object of token: id.
  explicit Vocabulary(const JsonNode& field);

  std::optional<int32_t> id(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional<int32_t>(it->second);
  }
  // nullptr where no token has this id.
  const std::string* token(int64_t id) const {
    return id < 0 || id >= static_cast<int64_t>(tokens_.size()) ? nullptr
                                                                : tokens_[static_cast<size_t>(id)];
  }
  size_t size() const { return ids_.size(); }
  size_t num_ids() const { return tokens_.size(); }  // the largest id and 1

 private:
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // into ids_, whose nodes stay where they are
};

}  // namespace seer::io
