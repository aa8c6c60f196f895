#include "seer/io/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/stand_in.h"

namespace seer::io {

namespace {

constexpr const char* kDecoder = "added_tokens_decoder";
constexpr const char* kExtra = "extra_special_tokens";
constexpr const char* kAdditional = "additional_special_tokens";  // its older name

// A special token is a string or an object with "content".
AddedToken read_special(const JsonNode& node) {
  AddedToken token;
  if (node.is_object()) {
    token = read_added_token(node, true);
  } else {
    token.content = node.string();
  }
  token.is_special = true;
  if (token.content.empty()) node.expected("a text that is not empty");
  return token;
}

void read_list(const JsonNode& list, TokenizerConfig& config) {
  std::set<std::string> known;
  for (const AddedToken& token : config.additional) known.insert(token.content);
  for (size_t i = 0; i < list.array_size(); ++i) {
    AddedToken token = read_special(list.at(i));
    if (known.insert(token.content).second) config.additional.push_back(std::move(token));
  }
}

// Keys "..._token", and the lists of those without a role.
void read_special_tokens(const JsonNode& root, TokenizerConfig& config) {
  for (const auto& [key, value] : root.json().items()) {
    const bool has_role =
        std::find(kSpecialRoles.begin(), kSpecialRoles.end(), key) != kSpecialRoles.end();
    const bool is_text = value.is_string() || value.is_object();
    if (!has_role && !(key.ends_with("_token") && is_text)) continue;
    if (value.is_null()) {
      config.special.erase(key);
    } else {
      config.special[key] = read_special(root.at(key));
    }
  }
  for (const char* key : {kExtra, kAdditional}) {
    const auto field = root.find(key);
    if (!field) continue;
    if (field->is_object()) {  // tokens with names of their own
      for (const auto& item : field->json().items()) {
        config.special[item.key()] = read_special(field->at(item.key()));
      }
    } else {
      read_list(*field, config);
    }
  }
}

void read_decoder(const JsonNode& field, TokenizerConfig& config) {
  if (!field.is_object()) field.expected("an object of id: token");
  for (const auto& item : field.json().items()) {
    const std::string& key = item.key();
    AddedToken token = read_added_token(field.at(key), false);
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    SEER_CHECK(error == std::errc() && end == key.data() + key.size() && token.id >= 0 &&
                   token.id <= limits::kTokenId,
               field.where(), " has the key ", shown(key), ", expected the id of a token");
    if (token.content.empty()) field.expected("tokens that are not empty");
    config.added.push_back(std::move(token));
  }
}

// {"<tool>": 32000, ...}
void read_added_tokens(const JsonNode& root, TokenizerConfig& config) {
  if (!root.is_object()) root.expected("an object of token: id");
  std::set<std::string> special;
  for (const AddedToken& token : config.additional) special.insert(token.content);
  for (const auto& [name, token] : config.special) special.insert(token.content);
  for (const auto& item : root.json().items()) {
    const std::string& content = item.key();
    AddedToken token;
    token.content = content;
    token.id = static_cast<int32_t>(root.at(content).integer(0, limits::kTokenId));
    token.is_special = special.contains(content);
    token.is_normalized = !token.is_special;
    if (content.empty()) root.expected("tokens that are not empty");
    config.added.push_back(std::move(token));
  }
}

// A template is a string or a list of named ones, of which "default" is for plain conversations.
std::optional<ChatTemplate> read_chat_template(const JsonNode& node) {
  if (!node.is_array()) return ChatTemplate{node.string(), {}, node.where(), {}};
  std::map<std::string, std::string> texts;
  for (size_t i = 0; i < node.array_size(); ++i) {
    const JsonNode entry = node.at(i);
    texts.emplace(entry.at("name").string(), entry.at("template").string());
  }
  const auto plain = texts.find("default"), with_tools = texts.find("tool_use");
  if (plain == texts.end()) return std::nullopt;
  ChatTemplate read{plain->second, {}, node.where(), {}};
  if (with_tools != texts.end()) read.with_tools = with_tools->second;
  return read;
}

// Calls read(root) with the file's JSON where there is such a file.
template <class Read>
void with_file(const std::filesystem::path& path, const Read& read) {
  if (!std::filesystem::exists(path)) return;
  const nlohmann::json json = read_json(path);
  const JsonNode root(json, path.string());
  if (!root.is_object()) root.expected("an object");
  read(root);
}

// The first id of an eos_token_id, which is a number or a list of them.
std::optional<int64_t> first_eos_id(const std::filesystem::path& path) {
  std::optional<int64_t> id;
  with_file(path, [&](const JsonNode& root) {
    auto field = root.find("eos_token_id");
    if (field && field->is_array()) {
      if (field->array_size() == 0) return;
      field = field->at(size_t{0});
    }
    if (field) id = field->integer(-1, limits::kTokenId);
  });
  return id && *id < 0 ? std::nullopt : id;
}

}  // namespace

TokenizerConfig TokenizerConfig::read(const std::filesystem::path& folder) {
  TokenizerConfig config;
  with_file(folder / "tokenizer_config.json", [&](const JsonNode& root) {
    read_special_tokens(root, config);
    if (const auto field = root.find(kDecoder)) {
      read_decoder(*field, config);
      config.added_where = field->where();
      config.has_flags = true;
    }
    if (const auto chat = root.find("chat_template")) {
      config.chat_template = read_chat_template(*chat);
    }
  });
  if (!config.has_flags) {
    with_file(folder / "special_tokens_map.json",
              [&](const JsonNode& root) { read_special_tokens(root, config); });
    with_file(folder / "added_tokens.json", [&](const JsonNode& root) {
      read_added_tokens(root, config);
      config.added_where = root.where();
    });
  }
  std::sort(config.added.begin(), config.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  const auto template_path = folder / "chat_template.jinja";
  if (std::filesystem::exists(template_path)) {
    config.chat_template = ChatTemplate{read_file(template_path), {}, template_path.string(), {}};
    if (const auto other = stand_in(config.chat_template->text); !other.empty()) {
      fail(template_path.string(), " ", other);
    }
  }
  if (config.chat_template) {
    auto& tokens = config.chat_template->tokens;
    for (const auto& [role, token] : config.special) tokens[role] = token.content;
    nlohmann::json additional;
    for (const AddedToken& token : config.additional) additional.push_back(token.content);
    if (!additional.is_null()) tokens["additional_special_tokens"] = additional;
  }
  if (!config.special.count("eos_token")) {
    config.eos_id = first_eos_id(folder / "generation_config.json");
    if (!config.eos_id) config.eos_id = first_eos_id(folder / "config.json");
  }
  return config;
}

}  // namespace seer::io
