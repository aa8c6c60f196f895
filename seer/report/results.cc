#include "seer/report/results.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <set>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/report/results_script.h"

namespace seer::report {
namespace {

using nlohmann::json;

// What tells the rows of one measurement from those of others.
json shape_of(const json& row) {
  json shape = json::array();
  for (const char* keys : {"whole_model", "shape"}) {
    for (const auto& key : record_form()[keys]) {
      shape.push_back(row.value(key.get<std::string>(), json()));
    }
  }
  return shape;
}

}  // namespace

json rounded(double value) {
  return std::isfinite(value) ? json(std::round(value * 1e6) / 1e6) : json(nullptr);
}

const json& record_form() {
  static const json form = json::parse(kResultsForm);
  return form;
}

json record(const std::string& operation, const std::vector<std::string>& command,
            const json& machine, json rows) {
  const char* world = std::getenv("WORLD_SIZE");
  const int processes = world == nullptr ? 1 : std::atoi(world);
  std::string line =
      processes > 1 ? "torchrun --no-python --nproc_per_node " + std::to_string(processes) + " "
                    : "";
  line += "seer";
  for (size_t i = 1; i < command.size(); ++i) {
    const std::string& word = command[i];
    if (word == "--out") ++i;  // where, not what
    if (word != "--out" && !word.starts_with("--out=")) line += " " + word;
  }
  const std::time_t now = std::time(nullptr);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  json made = machine;
  made.update({{"operation", operation}, {"command", line}, {"date", date}});
  made["rows"] = std::move(rows);
  return made;
}

json appended(const std::filesystem::path& path, json made) {
  const json before = read_json(path);
  SEER_CHECK(before.is_object() && before.contains("rows") && before["rows"].is_array() &&
                 before.value("command", json()).is_string(),
             path.string(), " holds no results: want an object with rows and command");
  for (const auto& each : record_form()["same"]) {
    const auto key = each.get<std::string>();
    const json was = before.value(key, json());
    const json now = made.value(key, json());
    SEER_CHECK(was == now, path.string(), " has rows of other ", key, " (", shown_value(was),
               ", now ", shown_value(now), "): choose another --out");
  }
  std::set<json> measured;
  for (const auto& row : made["rows"]) measured.insert(shape_of(row));
  json rows = json::array();
  for (const auto& row : before["rows"]) {
    if (!measured.contains(shape_of(row))) rows.push_back(row);
  }
  rows.insert(rows.end(), made["rows"].begin(), made["rows"].end());
  made["rows"] = std::move(rows);
  made["command"] =
      before["command"].get<std::string>() + "; " + made["command"].get<std::string>();
  return made;
}

std::string slug(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u)) {
      out += static_cast<char>(std::tolower(u));
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out;
}

}  // namespace seer::report
