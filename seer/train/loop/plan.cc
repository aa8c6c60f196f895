#include "seer/train/loop/plan.h"

#include <cstdio>

#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/models/memory.h"

namespace seer::train {
namespace {

std::string memory_text(const Plan& plan) {
  const struct {
    const char* name;
    double bytes;
  } parts[] = {{"weights", plan.weights},
               {"what is trained", plan.trained},
               {"activations", plan.activations},
               {"attention maps", plan.maps}};
  double sum = 0;
  std::string text;
  for (const auto& [name, bytes] : parts) {
    if (bytes <= 0) continue;
    sum += bytes;
    text += (text.empty() ? "" : ", ") + std::string(name) + " " + models::bytes_text(bytes);
  }
  if (plan.on_host > 0) text += "; in host memory " + models::bytes_text(plan.on_host);
  return sum > 0 ? "about " + models::bytes_text(sum) + " of memory: " + text : "";
}

}  // namespace

std::vector<std::string> plan_lines(const std::string& task, const Plan& plan, int64_t steps,
                                    int64_t tokens_per_step) {
  std::vector<std::string> lines;
  const auto each = static_cast<double>(tokens_per_step);
  lines.push_back(task + ": " + counted(steps, "step") + " of " + count_text(each) + " tokens" +
                  (plan.step.empty() ? "" : " (" + plan.step + ")") + ", " +
                  count_text(each * static_cast<double>(steps)) + " in all");
  const std::string memory = memory_text(plan);
  if (!memory.empty()) lines.push_back(task + ": " + memory);
  if (!plan.warning.empty()) lines.push_back(task + ": " + plan.warning);
  return lines;
}

std::string time_line(const std::string& task, double seconds_per_step, int64_t steps) {
  char each[32];
  std::snprintf(each, sizeof(each), "%.2g s", seconds_per_step);
  return task + ": about " + (seconds_per_step < 9.95 ? each : duration_text(seconds_per_step)) +
         " a step, " + duration_text(seconds_per_step * static_cast<double>(steps)) + " for " +
         counted(steps, "step");
}

}  // namespace seer::train
