#include "seer/report/page.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <set>
#include <system_error>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/output.h"
#include "seer/base/shown.h"
#include "seer/report/curves.h"
#include "seer/report/page/index_script.h"

namespace seer::report {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Of models' and gates' folders.
const std::set<std::string> kOfModels{"config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "generation_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "chat_template.json"};

bool is_result_file(const fs::path& path) {
  const std::string name = path.filename().string();
  return path.extension() == ".json" && !name.starts_with('.') && !name.ends_with(".index.json") &&
         !kOfModels.contains(name);
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  try {
    for (fs::recursive_directory_iterator at(folder), end; at != end; ++at) {
      const bool is_hidden = at->path().filename().string().starts_with('.');
      if (is_hidden && at->is_directory()) at.disable_recursion_pending();
      if (at->is_regular_file() && is_result_file(at->path())) files.push_back(at->path());
    }
  } catch (const fs::filesystem_error& error) {
    fail("cannot read the folder ", one_line(folder.string(), limits::kMessageLength), ": ",
         error.code().message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Floating-point numbers to eight digits: rounded once more, for a table, they still are what they were.
void shorten(json& value) {
  if (value.is_structured()) {
    for (json& each : value) shorten(each);
  } else if (value.is_number_float()) {
    const double number = value.get<double>();
    if (!std::isfinite(number)) {
      value = nullptr;
      return;
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.8g", number);
    value = std::strtod(text, nullptr);
  }
}

bool holds_metrics(const json& file) {
  return file.is_object() && std::any_of(file.begin(), file.end(), [](const json& part) {
           return part.is_object() && part.value("metrics", json()).is_array();
         });
}

json file_of(const fs::path& path, const std::string& name) {
  json made{{"path", name}, {"kind", "other"}};
  json read = read_json(path);
  const auto has = [&](const char* key, json::value_t type) {
    return read.is_object() && read.contains(key) && read[key].type() == type;
  };
  const fs::path metrics = path.parent_path() / "metrics.jsonl";
  if (has("operation", json::value_t::string) && has("rows", json::value_t::array)) {
    made["kind"] = "results";
  } else if (path.filename() == "run.json" && has("settings", json::value_t::object) &&
             fs::is_regular_file(metrics)) {
    made["kind"] = "training";
    read = training_curves(read, metrics);
  } else if (has("lost", json::value_t::array) && has("lookup_heads", json::value_t::array)) {
    made["kind"] = "heads";
  } else if (!holds_metrics(read)) {
    return made;
  }
  shorten(read);
  made["json"] = std::move(read);
  return made;
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  return date;
}

}  // namespace

json page_data(const std::vector<fs::path>& paths) {
  json data{{"files", json::array()}, {"folders", json::array()}, {"date", today()}};
  for (const fs::path& path : paths) {
    std::error_code error;
    data["folders"].push_back(path.string());
    if (!fs::is_directory(path, error)) {
      data["files"].push_back(file_of(path, path.filename().string()));
      continue;
    }
    const fs::path before = paths.size() > 1 ? path.parent_path() : path;
    for (const fs::path& file : files_below(path)) {
      data["files"].push_back(file_of(file, file.lexically_relative(before).string()));
    }
  }
  return data;
}

json page_data(const std::string& path, json record) {
  shorten(record);
  const json file{{"path", path}, {"kind", "results"}, {"json", std::move(record)}};
  return {{"files", json::array({file})}, {"folders", json::array()}, {"date", today()}};
}

std::string page_html(const json& data) {
  std::string text = json_text(data);
  // Nothing in a text ends the element that it stands in: in JSON this character stands in strings only.
  for (size_t at = 0; (at = text.find('<', at)) != text.npos;) text.replace(at, 1, "\\u003c");
  SEER_CHECK(text.size() <= kPageBytes, "the results have ", text.size() >> 20,
             " MiB, a page at most ", kPageBytes >> 20, ": name fewer of them");
  std::string page = kReportPage;
  const std::string place = "{\"files\": []}";
  return page.replace(page.find(place), place.size(), text);
}

size_t write_page(const std::vector<fs::path>& paths, const fs::path& out) {
  for (const fs::path& path : paths) {
    for (const fs::path& file : fs::is_directory(path) ? files_below(path) : std::vector{path}) {
      SEER_CHECK(!is_same_file(file, out), "the page would replace ", out.string(),
                 ", which it is to show: name another file");
    }
  }
  const std::string page = page_html(page_data(paths));
  write_file_atomic(out, page);
  return page.size();
}

}  // namespace seer::report
