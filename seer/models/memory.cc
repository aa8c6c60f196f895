#include "seer/models/memory.h"

#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <new>
#include <utility>

namespace seer::models {
namespace {

double size_of(at::ScalarType dtype) {
  return static_cast<double>(c10::elementSize(dtype));
}

// The first number of a file; -1: no such file, or a word ("max").
double number_in(const std::string& path) {
  std::ifstream file(path);
  double value = -1;
  return file >> value ? value : -1;
}

double host_bytes() {
  std::ifstream info("/proc/meminfo");
  double available = 0;
  for (std::string line; std::getline(info, line);) {
    if (std::sscanf(line.c_str(), "MemAvailable: %lf kB", &available) == 1) break;
  }
  available *= 1024;
  constexpr std::pair<const char*, const char*> kGroups[] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
       "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit_file, used_file] : kGroups) {
    const double limit = number_in(limit_file), used = number_in(used_file);
    if (limit > 0 && used >= 0) available = std::min(available, std::max(0.0, limit - used));
  }
  return available;
}

}  // namespace

double weight_bytes(const io::ModelConfig& config, at::ScalarType dtype) {
  const double hidden = config.hidden_size, inner = config.intermediate_size, d = config.head_dim;
  const double attention = 2 * hidden * d * (config.num_heads + config.num_kv_heads);
  const double embeddings =
      static_cast<double>(config.vocab_size) * hidden * (config.tied_embeddings ? 1 : 2);
  return size_of(dtype) * (config.num_layers * (attention + 3 * hidden * inner) + embeddings);
}

double cache_bytes(const io::ModelConfig& config, int64_t tokens, at::ScalarType dtype) {
  return 2.0 * config.num_layers * config.num_kv_heads * config.head_dim *
         static_cast<double>(tokens) * size_of(dtype);
}

double pass_bytes(const io::ModelConfig& config, int64_t tokens, int64_t block,
                  at::ScalarType dtype) {
  const auto t = static_cast<double>(tokens);
  const double d = config.head_dim;
  // In a layer's attention: residual, normed input, q and k before and after RoPE, v, output; in its MLP:
  // residual, input, both products and theirs.
  const double attention =
      3.0 * config.hidden_size + d * (3.0 * config.num_heads + 3.0 * config.num_kv_heads);
  const double mlp = 2.0 * config.hidden_size + 3.0 * config.intermediate_size;
  // Scores, their copy and lists.
  const double rows = block > 0 ? t / static_cast<double>(block) : 0;
  const double scores = 3 * 4 * config.num_heads * rows * rows;
  const double logits = 3 * 4 * std::min(t, 1024.0) * static_cast<double>(config.vocab_size);
  return std::max({size_of(dtype) * t * attention + scores, size_of(dtype) * t * mlp, logits});
}

double available_bytes(const c10::Device& device) {
  if (!device.is_cuda()) return host_bytes();
  at::empty({1}, device);  // the device's allocator exists from the first allocation on
  const auto index = std::max<c10::DeviceIndex>(device.index(), 0);
  return static_cast<double>(c10::getDeviceAllocator(device.type())->getMemoryInfo(index).first);
}

std::optional<c10::DeviceType> full_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error)) return c10::kCPU;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error)) return c10::kCUDA;
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  if (torch == nullptr) return std::nullopt;
  const std::string text = torch->what_without_backtrace();
  const auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (has("can't allocate memory") || has("not enough memory")) return c10::kCPU;
  if (has("out of memory")) return c10::kCUDA;
  return std::nullopt;
}

std::string bytes_text(double bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, bytes < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes,
                kUnits[unit]);
  return text;
}

}  // namespace seer::models
