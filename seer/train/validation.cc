#include "seer/train/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace seer::train {
namespace {

at::Tensor window_of(const TokenStream& stream, int32_t bos, int64_t index, int64_t length) {
  const int64_t body = length - (bos >= 0 ? 1 : 0);
  std::vector<int32_t> window(static_cast<size_t>(length), bos);
  stream.copy(index * body, body, window.data() + length - body);
  const at::Tensor ids = at::empty({length}, at::kLong);
  std::copy(window.begin(), window.end(), ids.mutable_data_ptr<int64_t>());
  return ids;
}

}  // namespace

std::map<std::string, std::vector<double>> mean_over_windows(const HeldOut& held_out,
                                                             int64_t metrics,
                                                             const at::Device& device,
                                                             const MeasureWindow& measure,
                                                             Ranks& ranks) {
  const auto& [text, length, most] = held_out;
  if (text.streams.empty()) return {};
  const at::NoGradGuard no_grad;
  const int64_t body = length - (text.bos >= 0 ? 1 : 0);
  std::vector<int64_t> counts;
  for (const TokenStream& stream : text.streams) {
    counts.push_back(std::min(most, stream.size() / body));
  }
  // Processes take turns over all streams' windows: one window of many files is shared, too.
  const at::Tensor sums = at::zeros({static_cast<int64_t>(counts.size()), metrics},
                                    at::TensorOptions(device).dtype(at::kDouble));
  int64_t turn = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    for (int64_t i = 0; i < counts[s]; ++i) {
      if (turn++ % ranks.size() != ranks.rank()) continue;
      sums[static_cast<int64_t>(s)].add_(measure(window_of(text.streams[s], text.bos, i, length)));
    }
  }
  ranks.start_sum(sums);
  ranks.finish_sums();

  const at::Tensor on_host = sums.to(at::kCPU);
  std::map<std::string, std::vector<double>> means;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] < 1) continue;
    const std::string source = text.streams[s].file().source();
    const double* sum = on_host[static_cast<int64_t>(s)].const_data_ptr<double>();
    std::vector<double>& mean = means[source.substr(0, source.find('.'))];
    mean.assign(sum, sum + metrics);
    for (double& value : mean) value /= static_cast<double>(counts[s]);
  }
  return means;
}

}  // namespace seer::train
