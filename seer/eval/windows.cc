#include "seer/eval/windows.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::eval {

WindowCutter::WindowCutter(const std::vector<int64_t>& lengths, double min_ratio,
                           int64_t max_documents, int64_t bos_id, bool further)
    : min_ratio_(min_ratio), max_documents_(max_documents), bos_id_(bos_id), further_(further) {
  for (const int64_t length : lengths) {
    SEER_CHECK(length >= 2, "length is ", length, ", want at least 2 tokens");
    cuts_.push_back({.length = length, .documents = {}});
  }
}

bool WindowCutter::wants_more() const {
  return std::any_of(cuts_.begin(), cuts_.end(), [&](const Cut& cut) {
    return static_cast<int64_t>(cut.documents.size()) < max_documents_;
  });
}

void WindowCutter::add(const std::vector<int32_t>& document) {
  longest_ = std::max(longest_, document.size());
  const auto size = static_cast<int64_t>(document.size());
  for (auto& [length, documents] : cuts_) {
    const bool is_long = static_cast<double>(size) >= min_ratio_ * static_cast<double>(length);
    if (!is_long || static_cast<int64_t>(documents.size()) >= max_documents_) continue;
    const int64_t wanted = length - (bos_id_ >= 0 ? 1 : 0);
    const int64_t most = further_ ? std::min(max_documents_, size / wanted) : 1;
    std::vector<std::vector<int32_t>> windows;
    for (int64_t i = 0; i < most && (i + 1) * wanted <= size; ++i) {
      std::vector<int32_t>& window = windows.emplace_back();
      if (bos_id_ >= 0) window.push_back(static_cast<int32_t>(bos_id_));
      const auto begin = document.begin() + i * wanted;
      window.insert(window.end(), begin, begin + wanted);
    }
    if (!windows.empty()) documents.push_back(std::move(windows));
  }
}

std::vector<Windows> WindowCutter::take() {
  std::vector<Windows> all;
  for (auto& [length, documents] : cuts_) {
    SEER_CHECK(!documents.empty(), "no document has ", min_ratio_, " x ", length,
               " tokens (the longest has ", longest_, "): choose a shorter length, ",
               min_ratio_ > 1 ? "a lower --min-ratio, " : "", "or longer texts");
    Windows& windows = all.emplace_back();
    windows.length = length;
    bool found = true;
    for (size_t round = 0; found; ++round) {
      found = false;
      for (auto& document : documents) {
        if (round >= document.size()) continue;
        if (static_cast<int64_t>(windows.ids.size()) >= max_documents_) break;
        windows.ids.push_back(std::move(document[round]));
        found = true;
      }
    }
  }
  return all;
}

at::Tensor ids_of(const std::vector<int32_t>& window, const at::Device& device) {
  const std::vector<int64_t> ids(window.begin(), window.end());
  return at::tensor(at::IntArrayRef(ids), at::kLong).to(device);
}

}  // namespace seer::eval
