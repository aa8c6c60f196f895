#pragma once
// A model's chat template: Jinja, rendered by jinja2 in the Python of the build (chat_template.py).

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace seer::io {

struct Message {
  std::string role, content;
};

struct ChatTemplate {
  std::string text;
  std::optional<std::string> with_tools;         // used in its place where tools are given
  std::string where;                             // file and field, for errors
  std::map<std::string, nlohmann::json> tokens;  // "bos_token": "<s>" ..., which templates name

  // The prompt of a conversation, to be encoded without special tokens, as transformers makes it.
  // `tools`: JSON, a list of schemas in whose order of keys they are rendered, or null. Error: what the template does wrong or raises itself,
  // with its line; more time, memory or text than seer/base/limits.h allows; a Python without jinja2.
  std::string render(const std::vector<Message>& messages, const std::string& tools,
                     bool add_generation_prompt) const;
};

}  // namespace seer::io
