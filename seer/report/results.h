#pragma once
// Results as files: rows, and what stands around them to tell how they were made. results.json lists
// the fields and what must be equal in records that are joined; bench/record.py reads it, too.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace seer::report {

// `rows` with everything around them. `command`: the words of the command line. `machine`: chip,
// threads, versions and what else tells machines apart.
nlohmann::json record(const std::string& operation, const std::vector<std::string>& command,
                      const nlohmann::json& machine, nlohmann::json rows);

// `made` with the rows that the record at `path` has of other models and shapes before its own, and
// both commands. Error: that is no record, or of another chip, number of threads or version.
nlohmann::json appended(const std::filesystem::path& path, nlohmann::json made);

// With as many digits as say something; null where it is not finite.
nlohmann::json rounded(double value);

// results.json.
const nlohmann::json& record_form();

// A folder's name: "NVIDIA H200" -> "nvidia-h200".
std::string slug(const std::string& name);

}  // namespace seer::report
