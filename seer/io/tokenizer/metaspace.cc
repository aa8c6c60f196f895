#include "seer/io/tokenizer/metaspace.h"

#include "seer/base/utf8.h"

namespace seer::io {

std::string read_character(const JsonNode& field) {
  const std::string& text = field.string();
  size_t length = 0;
  if (!text.empty()) next_code_point(text, length);
  if (length == 0 || length != text.size()) field.expected("one character");
  return text;
}

MetaspaceSettings read_metaspace(const JsonNode& field) {
  MetaspaceSettings settings;
  settings.replacement = read_character(field.at("replacement"));
  const std::string scheme = field.string_or("prepend_scheme", "always");
  if (scheme == "always") {
    settings.prepend = MetaspaceSettings::Prepend::always;
  } else if (scheme == "never") {
    settings.prepend = MetaspaceSettings::Prepend::never;
  } else if (scheme == "first") {
    settings.prepend = MetaspaceSettings::Prepend::first;
  } else {
    field.unsupported("prepend_scheme", scheme, "always, never, first");
  }
  // Older files have add_prefix_space alone.
  if (!field.boolean_or("add_prefix_space", true)) {
    if (field.find("prepend_scheme") && scheme != "never") {
      field.expected("a prepend_scheme that agrees with add_prefix_space");
    }
    settings.prepend = MetaspaceSettings::Prepend::never;
  }
  settings.split = field.boolean_or("split", true);
  return settings;
}

}  // namespace seer::io
