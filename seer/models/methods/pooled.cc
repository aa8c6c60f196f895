// "pooled": the mean query of a block times the mean key of a block, nothing trained. This is the estimate of
// MInference's block-sparse heads (arXiv 2407.02490, algorithm 3), and, up to what each does besides, of
// SpargeAttn (2502.18137) and MoBA (2502.13189). Here all heads have it, and blocks of 64.

#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

class PooledMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    return mean_scores(block_means(input, ragged), ragged, input.scale);
  }
};

}  // namespace

std::unique_ptr<Method> make_pooled(const MethodInputs&) {
  return std::make_unique<PooledMethod>();
}

}  // namespace seer::models
