#include "seer/report/curves.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"

namespace seer::report {
namespace {

using nlohmann::json;

std::vector<json> lines_of(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<json> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    std::string problem;
    json line = parse_json(std::string_view(text).substr(begin, end - begin), &problem);
    if (!line.is_discarded() && !line.is_object()) problem = "is no JSON object";
    SEER_CHECK(problem.empty(), one_line(path.string(), limits::kMessageLength), ": line ",
               lines.size() + 1, " ", problem, ": mend it or leave the run out");
    lines.push_back(std::move(line));
  }
  return lines;
}

// Gates have no loss in steps without one.
json mean_of(const std::vector<json>& steps, size_t from, size_t to, const char* name) {
  double sum = 0;
  int count = 0;
  for (size_t i = from; i < to; ++i) {
    const json value = steps[i].value(name, json());
    if (!value.is_number()) continue;
    sum += value.get<double>();
    ++count;
  }
  return count > 0 ? json(sum / count) : json(nullptr);
}

}  // namespace

json training_curves(const json& run, const std::filesystem::path& metrics, size_t points) {
  std::vector<json> steps;
  json made{{"tokens", json::array()}, {"loss", json::array()}, {"valid", json::object()}};
  for (const char* key : {"task", "settings"}) made[key] = run.value(key, json());
  json tokens = 0;
  double seconds = 0;
  for (json& line : lines_of(metrics)) {
    tokens = line.value("tokens", tokens);
    const json spent = line.value("seconds", json());
    if (spent.is_number()) seconds = std::max(seconds, spent.get<double>());
    for (const auto& [key, value] : line.items()) {
      const bool is_loss = key.starts_with("valid_") && !key.starts_with("valid_skipped");
      if (is_loss && value.is_number()) made["valid"][key.substr(6)].push_back({tokens, value});
    }
    if (line.contains("loss") && !line.contains("skipped")) steps.push_back(std::move(line));
  }
  const size_t size = std::max<size_t>(1, (steps.size() + points - 1) / points);
  for (size_t from = 0; from < steps.size(); from += size) {
    const size_t to = std::min(from + size, steps.size());
    made["tokens"].push_back(steps[to - 1].value("tokens", json()));
    made["loss"].push_back(mean_of(steps, from, to, "loss"));
    if (steps[0].contains("gate_loss")) {
      made["gate_loss"].push_back(mean_of(steps, from, to, "gate_loss"));
    }
  }
  made["steps"] = steps.size();
  made["seconds"] = seconds;
  return made;
}

}  // namespace seer::report
