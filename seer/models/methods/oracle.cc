// "oracle": the model's own max-pooled attention map (arXiv 2410.13276, section 3.2), which is what gates
// learn to predict.

#include <limits>

#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

class OracleMethod : public Method {
 public:
  // The logarithm of the map: its softmax is the map with rows that sum to 1.
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    const auto map = std::get<1>(torch_ops::pooled_map(input.q, input.k, ragged, input.scale,
                                                       /*causal=*/true, /*group_max=*/false,
                                                       /*normalise=*/false));
    // A visible block may have a probability that rounds to 0: the smallest normal number keeps it
    // apart from a masked one, which must be -inf.
    const at::Tensor logarithm = map.clamp_min(std::numeric_limits<float>::min()).log_();
    return scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      return logarithm.narrow(1, one.row_at, one.rows).narrow(2, 0, one.blocks);
    });
  }
};

}  // namespace

std::unique_ptr<Method> make_oracle(const MethodInputs&) {
  return std::make_unique<OracleMethod>();
}

}  // namespace seer::models
