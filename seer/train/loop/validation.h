#pragma once
// Means over held-out text, shared by the processes that train together.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "seer/train/data/data.h"
#include "seer/train/ranks/ranks.h"

namespace seer::train {

// The first windows of each held-out stream, one after another: BOS, then text.
struct HeldOut {
  const Mixture& text;
  int64_t length;  // tokens of a window
  int64_t most;    // windows of a stream
};

// Metrics of one window: ids int64 [length] on the CPU -> f64 [metrics] on `device`.
using MeasureWindow = std::function<at::Tensor(const at::Tensor& ids)>;

// Of one stream: the mean of each metric over its windows, without those of which one was not finite
// (NaN if all of them).
struct WindowMeans {
  std::vector<double> means;
  int64_t skipped = 0;  // windows
  bool operator==(const WindowMeans&) const = default;
};

// As the loop takes them: each metric's prefix and the stream's name; "skipped_windows_<stream>" where
// some were.
std::map<std::string, double> by_name(const std::map<std::string, WindowMeans>& results,
                                      const std::vector<std::string>& prefixes);

// Error: a stream is shorter than a window, or two have one name.
void check_held_out(const HeldOut& held_out);

// By the streams' names up to their first dot; a stream shorter than a window is left out. To be called in all processes: each measures every
// ranks.size()th window, all get the same result. Needs no gradients; waits for the device once.
std::map<std::string, WindowMeans> mean_over_windows(const HeldOut& held_out, int64_t metrics,
                                                     const at::Device& device,
                                                     const MeasureWindow& measure, Ranks& ranks);

}  // namespace seer::train
