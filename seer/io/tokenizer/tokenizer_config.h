#pragma once
// What stands beside tokenizer.json: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
// chat_template.jinja. Names of special tokens, further added tokens, the chat template.

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seer/io/chat_template.h"
#include "seer/io/tokenizer/added_token.h"

namespace seer::io {

// In the order in which tokens that no file numbers get their ids.
inline constexpr std::array<std::string_view, 7> kSpecialRoles = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

struct TokenizerConfig {
  std::map<std::string, AddedToken>
      special;  // "bos_token": "<s>" ...; those that are set; other names, too
  std::vector<AddedToken> additional;  // special ones without a role
  std::vector<AddedToken> added;       // by id
  std::string added_where;             // where those stand, for errors
  bool has_flags = false;              // `added` says more than names and ids
  std::optional<ChatTemplate> chat_template;
  // Of generation_config.json or config.json, where no file names an eos_token.
  std::optional<int64_t> eos_id;

  // Values of a folder, with transformers' precedence: special_tokens_map.json and added_tokens.json are
  // older forms. The first goes before tokenizer_config.json, and neither counts where that has
  // added_tokens_decoder. chat_template.jinja goes before the template in tokenizer_config.json. Files
  // that are not there leave everything unset. Error: not JSON, a field of the wrong type.
  static TokenizerConfig read(const std::filesystem::path& folder);
};

}  // namespace seer::io
