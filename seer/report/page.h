#pragma once
// One HTML file that shows whatever results folders hold: page/ and Chart.js, joined by the build, with the results as JSON in it.
// It needs no network.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace seer::report {

// Bytes of a page's JSON, at most.
inline constexpr size_t kPageBytes = size_t{64} << 20;

// The JSON files in these folders (and below them) and these files, as {"files": [{"path", "kind", "json"}]}:
//   "results": an object with "operation" and "rows"
//   "training": the curves of a run of training, of its run.json and metrics.jsonl
//   "heads": what heads lose (heads.json)
//   "other": none of these, without "json", unless it holds "metrics" of trainings
// Files of models (config.json, tokenizer.json, ...) and hidden ones are left out. Numbers have eight digits. Error: a path that is
// not there, a file that is not JSON.
nlohmann::json page_data(const std::vector<std::filesystem::path>& paths);

// The same of one record that is no file (yet), by the name `path`.
nlohmann::json page_data(const std::string& path, nlohmann::json record);

// The page of page_data(). Error: it is larger than kPageBytes.
std::string page_html(const nlohmann::json& data);

// Both. Atomic: nothing is written where something is wrong. Gives the page's bytes.
size_t write_page(const std::vector<std::filesystem::path>& paths,
                  const std::filesystem::path& out);

}  // namespace seer::report
