#pragma once
// tokenizer_config.json: names of special tokens and the chat template.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace seer::io {

struct TokenizerConfig {
  std::map<std::string, std::string> special;  // "bos_token": "<s>" ...; those that are set
  std::vector<std::string> additional;         // additional_special_tokens
  std::optional<std::string> chat_template;
  std::string chat_template_name;  // where it stands, for errors

  // Values of a folder; chat_template.jinja goes before the template in tokenizer_config.json. Files
  // that are not there leave everything unset. Error: not JSON, a field of the wrong type.
  static TokenizerConfig read(const std::filesystem::path& folder);
};

}  // namespace seer::io
