#pragma once
// Curves of a run of training, few enough points for a picture.

#include <filesystem>
#include <nlohmann/json.hpp>

namespace seer::report {

inline constexpr size_t kCurvePoints = 200;

// Of a run's run.json and the lines of its metrics.jsonl, in the form of bench/training_runs.py: {"task", "settings", "steps",
// "seconds", "tokens": [...], "loss": [...], "gate_loss": [...], "valid": {name: [[tokens, loss], ...]}}. Each of the points is the
// mean of the steps since the one before; steps that were skipped are left out, and a last line that is being written. Error: a line that is no JSON object.
nlohmann::json training_curves(const nlohmann::json& run, const std::filesystem::path& metrics,
                               size_t points = kCurvePoints);

}  // namespace seer::report
