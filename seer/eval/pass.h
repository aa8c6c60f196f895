#pragma once
// One pass of a model over a window by one method, timed and watched, and the order in which
// comparisons of methods make their passes.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "seer/eval/method.h"
#include "seer/models/decoder.h"
#include "seer/models/sparse_meter.h"

namespace seer::eval {

// What a caller hears of a pass while it goes on. Each may be empty.
struct PassWatch {
  std::function<void(double share)> part;  // of the pass in progress
  std::function<bool()> stop;              // asked at every layer: true ends the work
};
// Of a measurement that makes rows.
template <class Row>
struct WatchOf : PassWatch {
  std::function<void()> pass;           // one is over: a method's over a window
  std::function<void(const Row&)> row;  // one is complete
};

// What one method did on one window.
struct Pass {
  at::Tensor hidden;  // [T, hidden] after the last norm; whoever keeps the pass drops it
  double attention_ms = 0, score_ms = 0, select_ms = 0, prefill_ms = 0;
  std::vector<int> layers;                           // that chose blocks
  std::vector<models::SparseStatistics::Call> kept;  // of each of them
};

// Ends a pass from within the attention of a layer.
struct PassStopped {};

// `gates` may be null where the method needs none. Throws PassStopped where the watch ends it.
Pass run_pass(const models::Decoder& model, const models::Gates* gates, const Method& method,
              const std::vector<int32_t>& window, const PassWatch& watch);

// Blocks computed over causal blocks of several passes, measured.
struct Density {
  double all = 1;
  // Of each layer; NaN where a sliding window hides keys and blocks are not chosen.
  std::vector<double> layers;
};
Density density_of(const std::vector<Pass>& passes, int num_layers);

// Median over passes, of an even number the lower of the middle two: of two the first also prepares what
// later ones use, such as kernels.
double median(const std::vector<Pass>& passes, double Pass::* field);

// Calls run(method, window) for all of both, window by window, so that a slow moment of the machine falls
// on all methods alike; then tell(method, windows), the number of windows that its row is of. Where a
// run stops or fails, rows are of the windows that all methods have seen, or, in the first window, of
// the methods that have; an error is rethrown after they are told.
void by_window(size_t methods, size_t windows,
               const std::function<void(size_t method, size_t window)>& run,
               const std::function<void(size_t method, size_t windows)>& tell);

}  // namespace seer::eval
