#include "seer/io/tokenizer/metaspace.h"

#include "seer/base/utf8.h"

namespace seer::io {

MetaspaceSettings read_metaspace(const JsonNode& field) {
  MetaspaceSettings settings;
  const JsonNode replacement = field.at("replacement");
  settings.replacement = replacement.string();
  size_t length = 0;
  if (!settings.replacement.empty()) next_code_point(settings.replacement, length);
  if (length == 0 || length != settings.replacement.size()) replacement.expected("one character");

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
