#include "seer/io/hub_name.h"

#include <string_view>

namespace seer::io {
namespace {

bool is_part(std::string_view part) {
  return !part.empty() && part[0] != '.' &&
         part.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string_view::npos;
}

}  // namespace

std::string hub_name(const std::string& path) {
  const size_t slash = path.find('/');
  if (slash == std::string::npos) return "";
  const std::string_view view = path;
  if (!is_part(view.substr(0, slash)) || !is_part(view.substr(slash + 1))) return "";
  return path.substr(slash + 1);
}

std::string hub_download(const std::string& path) {
  const std::string name = hub_name(path);
  return name.empty() ? "" : "`hf download " + path + " --local-dir " + name + "`";
}

}  // namespace seer::io
