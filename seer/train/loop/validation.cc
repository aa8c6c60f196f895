#include "seer/train/loop/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <set>

#include "seer/base/error.h"
#include "seer/base/shown.h"

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

std::string name_of(const TokenStream& stream) {
  const std::string source = stream.file().source();
  return source.substr(0, source.find('.'));
}

int64_t body_of(const HeldOut& held_out) {
  return held_out.length - (held_out.text.bos >= 0 ? 1 : 0);
}

}  // namespace

std::map<std::string, double> by_name(const std::map<std::string, WindowMeans>& results,
                                      const std::vector<std::string>& prefixes) {
  std::map<std::string, double> named;
  for (const auto& [stream, result] : results) {
    for (size_t j = 0; j < result.means.size(); ++j) named[prefixes[j] + stream] = result.means[j];
    if (result.skipped > 0) {
      named["skipped_windows_" + stream] = static_cast<double>(result.skipped);
    }
  }
  return named;
}

void check_held_out(const HeldOut& held_out) {
  std::set<std::string> names;
  for (const TokenStream& stream : held_out.text.streams) {
    SEER_CHECK(stream.size() >= body_of(held_out), "the held-out text ", stream.file().source(),
               " has ", counted(stream.size(), "token"), ", less than a window of ",
               held_out.length, ": choose a shorter length, or a longer text");
    SEER_CHECK(names.insert(name_of(stream)).second, "two held-out texts have the name ",
               name_of(stream), ", under which results are listed: rename one");
  }
}

std::map<std::string, WindowMeans> mean_over_windows(const HeldOut& held_out, int64_t metrics,
                                                     const at::Device& device,
                                                     const MeasureWindow& measure, Ranks& ranks) {
  const auto& [text, length, most] = held_out;
  if (text.streams.empty()) return {};
  const at::NoGradGuard no_grad;
  std::vector<int64_t> counts;
  for (const TokenStream& stream : text.streams) {
    counts.push_back(std::min(most, stream.size() / body_of(held_out)));
  }
  // Processes take turns over all streams' windows: one window of many files is shared, too. Last
  // comes the number of windows that were finite.
  const at::Tensor sums = at::zeros({static_cast<int64_t>(counts.size()), metrics + 1},
                                    at::TensorOptions(device).dtype(at::kDouble));
  int64_t turn = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    for (int64_t i = 0; i < counts[s]; ++i) {
      if (turn++ % ranks.size() != ranks.rank()) continue;
      const at::Tensor window = measure(window_of(text.streams[s], text.bos, i, length));
      const at::Tensor finite = at::isfinite(window).all();
      const at::Tensor row = sums[static_cast<int64_t>(s)];
      row.narrow(0, 0, metrics).add_(at::where(finite, window, at::zeros_like(window)));
      row.narrow(0, metrics, 1).add_(finite);
    }
  }
  ranks.start_sum(sums);
  ranks.finish();

  const at::Tensor on_host = sums.to(at::kCPU);
  std::map<std::string, WindowMeans> results;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] < 1) continue;
    const double* sum = on_host[static_cast<int64_t>(s)].const_data_ptr<double>();
    WindowMeans& result = results[name_of(text.streams[s])];
    result.means.assign(sum, sum + metrics);
    for (double& value : result.means) value /= sum[metrics];
    result.skipped = counts[s] - static_cast<int64_t>(sum[metrics]);
  }
  return results;
}

}  // namespace seer::train
