#include "seer/eval/windows.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::eval {

WindowCutter::WindowCutter(const std::vector<int64_t>& lengths, double min_ratio,
                           int64_t max_documents, int64_t bos_id)
    : min_ratio_(min_ratio), max_documents_(max_documents), bos_id_(bos_id) {
  for (const int64_t length : lengths) {
    SEER_CHECK(length >= 2, "length is ", length, ", want at least 2 tokens");
    windows_.push_back({.length = length, .ids = {}});
  }
}

bool WindowCutter::wants_more() const {
  return std::any_of(windows_.begin(), windows_.end(), [&](const Windows& windows) {
    return static_cast<int64_t>(windows.ids.size()) < max_documents_;
  });
}

void WindowCutter::add(const std::vector<int32_t>& document) {
  longest_ = std::max(longest_, document.size());
  const auto size = static_cast<int64_t>(document.size());
  for (auto& [length, ids] : windows_) {
    const bool is_long = static_cast<double>(size) >= min_ratio_ * static_cast<double>(length);
    if (!is_long || static_cast<int64_t>(ids.size()) >= max_documents_) continue;
    std::vector<int32_t> window;
    if (bos_id_ >= 0) window.push_back(static_cast<int32_t>(bos_id_));
    const int64_t wanted = length - static_cast<int64_t>(window.size());
    if (size < wanted) continue;
    window.insert(window.end(), document.begin(), document.begin() + wanted);
    ids.push_back(std::move(window));
  }
}

std::vector<Windows> WindowCutter::take() {
  for (const auto& [length, ids] : windows_) {
    SEER_CHECK(!ids.empty(), "no document has ", min_ratio_, " x ", length,
               " tokens (the longest has ", longest_,
               "): choose a shorter length, a lower --min-ratio, or longer texts");
  }
  return std::move(windows_);
}

at::Tensor ids_of(const std::vector<int32_t>& window, const at::Device& device) {
  const std::vector<int64_t> ids(window.begin(), window.end());
  return at::tensor(at::IntArrayRef(ids), at::kLong).to(device);
}

}  // namespace seer::eval
