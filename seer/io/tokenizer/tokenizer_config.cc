#include "seer/io/tokenizer/tokenizer_config.h"

#include "seer/base/file.h"
#include "seer/base/json.h"

namespace seer::io {

namespace {

// A token is a string or an object with "content".
std::string read_token(const JsonNode& node) {
  return node.json().is_object() ? node.at("content").string() : node.string();
}

// A template is a string or a list of named ones, of which "default" is for plain conversations.
std::optional<std::string> read_chat_template(const JsonNode& node) {
  if (!node.json().is_array()) return node.string();
  for (size_t i = 0; i < node.array_size(); ++i) {
    const JsonNode entry = node.at(i);
    if (entry.at("name").string() == "default") return entry.at("template").string();
  }
  return std::nullopt;
}

void read_tokenizer_config(const std::filesystem::path& path, TokenizerConfig& config) {
  const nlohmann::json json = read_json(path);
  const JsonNode root(json, path.string());
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                          "cls_token", "mask_token"}) {
    if (const auto token = root.find(key)) config.special[key] = read_token(*token);
  }
  if (const auto list = root.find("additional_special_tokens")) {
    for (size_t i = 0; i < list->array_size(); ++i) {
      config.additional.push_back(read_token(list->at(i)));
    }
  }
  if (const auto chat = root.find("chat_template")) {
    config.chat_template = read_chat_template(*chat);
    config.chat_template_name = chat->where();
  }
}

}  // namespace

TokenizerConfig TokenizerConfig::read(const std::filesystem::path& folder) {
  TokenizerConfig config;
  const auto json_path = folder / "tokenizer_config.json";
  const auto template_path = folder / "chat_template.jinja";
  if (std::filesystem::exists(json_path)) read_tokenizer_config(json_path, config);
  if (std::filesystem::exists(template_path)) {
    config.chat_template = read_file(template_path);
    config.chat_template_name = template_path.string();
  }
  return config;
}

}  // namespace seer::io
