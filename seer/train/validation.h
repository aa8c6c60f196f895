#pragma once
// Means over held-out text, shared by the processes that train together.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "seer/train/data.h"
#include "seer/train/ranks.h"

namespace seer::train {

// The first windows of each held-out stream, one after another: BOS, then text.
struct HeldOut {
  const Mixture& text;
  int64_t length;  // tokens of a window
  int64_t most;    // windows of a stream
};

// Metrics of one window: ids int64 [length] on the CPU -> f64 [metrics] on `device`.
using MeasureWindow = std::function<at::Tensor(const at::Tensor& ids)>;

// The mean of each metric over each stream's windows, by the stream's name up to its first dot; a stream
// shorter than a window is left out. To be called in all processes: each measures every ranks.size()th
// window, all get the same result. Needs no gradients; waits for the device once.
std::map<std::string, std::vector<double>> mean_over_windows(const HeldOut& held_out,
                                                             int64_t metrics,
                                                             const at::Device& device,
                                                             const MeasureWindow& measure,
                                                             Ranks& ranks);

}  // namespace seer::train
