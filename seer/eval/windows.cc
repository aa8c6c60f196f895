#include "seer/eval/windows.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::eval {

Windows document_windows(const std::vector<std::vector<int32_t>>& documents, int64_t length,
                         double min_ratio, int64_t max_documents, int64_t bos_id) {
  SEER_CHECK(length >= 2, "length is ", length, ", want at least 2 tokens");
  Windows windows{.length = length, .ids = {}};
  size_t longest = 0;
  for (const auto& document : documents) {
    longest = std::max(longest, document.size());
    if (static_cast<double>(document.size()) < min_ratio * static_cast<double>(length)) continue;
    if (static_cast<int64_t>(windows.ids.size()) == max_documents) break;
    std::vector<int32_t> window;
    if (bos_id >= 0) window.push_back(static_cast<int32_t>(bos_id));
    window.insert(window.end(), document.begin(),
                  document.begin() + std::min<int64_t>(document.size(), length - window.size()));
    if (static_cast<int64_t>(window.size()) == length) windows.ids.push_back(std::move(window));
  }
  SEER_CHECK(!windows.ids.empty(), "no document has ", min_ratio, " x ", length,
             " tokens (the longest has ", longest,
             "): choose a shorter length, a lower --min-ratio, or longer texts");
  return windows;
}

at::Tensor ids_of(const std::vector<int32_t>& window, const at::Device& device) {
  const std::vector<int64_t> ids(window.begin(), window.end());
  return at::tensor(at::IntArrayRef(ids), at::kLong).to(device);
}

}  // namespace seer::eval
