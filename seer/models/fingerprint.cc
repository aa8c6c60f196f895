#include "seer/models/fingerprint.h"

#include <bit>
#include <cstdio>

#include "seer/base/random.h"

namespace seer::models {
namespace {

constexpr int64_t kRuns = 16, kRun = 64;

uint64_t fnv1a64(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

void Fingerprint::add(const std::string& name, const at::Tensor& weight) {
  const at::Tensor flat = weight.detach().reshape(-1);
  uint64_t sum = 0, j = 0;
  const auto add_run = [&](int64_t begin, int64_t count) {
    const at::Tensor run = flat.narrow(0, begin, count).to(at::kCPU, at::kFloat).contiguous();
    const float* values = run.const_data_ptr<float>();
    for (int64_t i = 0; i < count; ++i, ++j) {
      sum += mix64(j << 32 | std::bit_cast<uint32_t>(values[i]));
    }
  };
  if (flat.numel() <= kRuns * kRun) {
    add_run(0, flat.numel());
  } else {
    for (int64_t i = 0; i < kRuns; ++i) add_run(i * (flat.numel() - kRun) / (kRuns - 1), kRun);
  }
  sums_[name] = sum;
}

std::string Fingerprint::text() const {
  const auto head = sums_.find("lm_head.weight"),
             embedding = sums_.find("model.embed_tokens.weight");
  const bool is_tied =
      head != sums_.end() && embedding != sums_.end() && head->second == embedding->second;
  uint64_t total = 0;
  for (const auto& [name, sum] : sums_) {
    if (!is_tied || name != head->first) total += mix64(fnv1a64(name) ^ sum);
  }
  char text[32];
  std::snprintf(text, sizeof text, "seer-1:%016llx", static_cast<unsigned long long>(total));
  return text;
}

}  // namespace seer::models
