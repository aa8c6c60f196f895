#pragma once
// Cuts a template into its text and the tokens of its tags, white space trimmed as the tags ask for
// (and as trim_blocks and lstrip_blocks do).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace seer::io::jinja {

struct Token {
  enum class Kind {
    data,  // text outside of tags
    variable_begin,
    variable_end,
    block_begin,
    block_end,
    name,
    string,
    integer,
    number,
    sign,
    end
  };
  Kind kind;
  std::string text;  // of strings: unescaped
  int line;
};

// Error names `name`, the line and what is wrong.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

}  // namespace seer::io::jinja
