// "streaming": the first block, then the more recent before the less recent, as StreamingLLM keeps keys
// (arXiv 2309.17453, section 3.2); whole blocks, of every row as many as the setting says.

#include <ATen/ops/arange.h>

#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

class StreamingMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    return scores_by_sequence(input, ragged,
                              [&](const OneSequence& one) {
                                const auto options = input.q.options().dtype(at::kFloat);
                                at::Tensor order = at::arange(one.blocks, options);
                                order[0].fill_(static_cast<double>(one.blocks));
                                return order.repeat({1, one.rows, 1});
                              })
        .expand({input.q.size(1), -1, -1});
  }
};

}  // namespace

std::unique_ptr<Method> make_streaming(const MethodInputs&) {
  return std::make_unique<StreamingMethod>();
}

}  // namespace seer::models
