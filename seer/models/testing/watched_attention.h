#pragma once
// For tests: sparse attention with its statistics.

#include "seer/models/sparse_attention.h"
#include "seer/models/sparse_meter.h"

namespace seer::models::test {

struct Watched {
  Watched(const Decoder& model, const Gates* gates, const SparseSettings& settings)
      : sparse(model, gates, settings), meter(model.device()) {}
  at::Tensor operator()(const AttentionInput& input) {
    const auto watch = meter.watch();
    return sparse(input);
  }
  SparseStatistics statistics() { return meter.statistics(); }
  SparseAttention sparse;
  SparseMeter meter;
};

}  // namespace seer::models::test
