#include "seer/io/jinja/template.h"

#include "seer/base/error.h"
#include "seer/base/utf8.h"
#include "seer/io/jinja/globals.h"
#include "seer/io/jinja/parser.h"
#include "seer/io/text.h"

namespace seer::io::jinja {

std::string render(std::string_view source, const std::string& name, const Context& context) {
  SEER_CHECK(find_invalid_utf8(source) == std::string_view::npos, name, " is not UTF-8");
  const Block block = parse(source, name);
  Limits limits;
  const auto root = std::make_shared<Scope>(nullptr, &limits);
  for (const auto& [key, value] : globals()) root->set(key, value);
  for (const auto& [key, value] : context) root->set(key, value);
  std::string out;
  try {
    run_block(block, root, out);
  } catch (const PlacedFailure& failure) {
    std::string text = failure.what();
    for (char& c : text) c = c == '\n' ? ' ' : c;
    fail(name, ": ", text);
  }
  return out;
}

}  // namespace seer::io::jinja
