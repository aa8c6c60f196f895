#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/bench/bench.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/impl.h"

namespace seer::bench {
namespace {

bool limited = false;

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

std::string device_name(const at::Device& device) {
  if (!device.is_cuda()) return cpu_model();
  return kernels::cuda_device_name(device.has_index() ? device.index() : 0);
}

}  // namespace

Times time_calls(const std::function<void()>& call, int min_runs, double seconds) {
  using Clock = std::chrono::steady_clock;
  call();  // warms up
  std::vector<double> ms;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    call();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  } while (static_cast<int>(ms.size()) < min_runs ||
           std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back(), static_cast<int>(ms.size())};
}

void limit_to_avx2() {
  kernels::limit_cpu_to_avx2();
  limited = true;
  // What torch, oneDNN and MKL read when they first run.
  setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2", 1);
}

std::string chip(const at::Device& device) {
  std::string out;
  for (const char c : device_name(device)) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u)) {
      out += static_cast<char>(std::tolower(u));
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  if (device.is_cuda()) return out;
  out += "-" + std::to_string(at::get_num_threads()) + "-threads";
  if (kernels::cpu_has_bf16_dot()) return out + "-avx512bf16";
  return limited ? out + "-avx2" : out;
}

nlohmann::json record(const std::string& operation, int argc, char** argv, nlohmann::json rows,
                      const at::Device& device) {
  std::string command = "seer";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--out") ++i;  // where, not what
    if (word != "--out" && !word.starts_with("--out=")) command += " " + word;
  }
  const std::time_t now = std::time(nullptr);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  return {{"operation", operation},
          {"chip", device_name(device)},
          {"threads", at::get_num_threads()},
          {"avx2_at_most", limited},
          {"bf16_dot_product", kernels::cpu_has_bf16_dot()},
          {"versions", {{"torch", TORCH_VERSION}, {"compiler", __VERSION__}}},
          {"command", command},
          {"date", date},
          {"rows", std::move(rows)}};
}

nlohmann::json appended(const std::filesystem::path& path, nlohmann::json made) {
  const nlohmann::json before = read_json(path);
  SEER_CHECK(before.is_object() && before.contains("rows") && before["rows"].is_array() &&
                 before.value("command", nlohmann::json()).is_string(),
             path.string(), " holds no results: want an object with rows and command");
  for (const char* key : {"operation", "chip", "threads", "avx2_at_most", "versions"}) {
    const nlohmann::json was = before.value(key, nlohmann::json());
    SEER_CHECK(was == made[key], path.string(), " has rows of other ", key, " (", shown_value(was),
               ", now ", shown_value(made[key]), "): choose another --out");
  }
  const auto shape = [](const nlohmann::json& row) {
    nlohmann::json of = nlohmann::json::array();
    for (const char* key : {"model", "heads_q", "heads_kv", "head_dim", "len_q", "len_k"}) {
      of.push_back(row.value(key, nlohmann::json()));
    }
    return of;
  };
  std::set<nlohmann::json> measured;
  for (const auto& row : made["rows"]) measured.insert(shape(row));
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& row : before["rows"]) {
    if (!measured.contains(shape(row))) rows.push_back(row);
  }
  rows.insert(rows.end(), made["rows"].begin(), made["rows"].end());
  made["rows"] = std::move(rows);
  made["command"] =
      before["command"].get<std::string>() + "; " + made["command"].get<std::string>();
  return made;
}

}  // namespace seer::bench
