// "streaming": the first block, then the more recent before the less recent (as StreamingLLM keeps keys).

#include "seer/models/methods/method.h"
#include "seer/models/methods/row_scores.h"

namespace seer::models {
namespace {

class StreamingMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    const auto first = static_cast<float>(ragged.num_blocks);
    const auto order = [&](int64_t, const QueryRow&, int64_t j) {
      return j == 0 ? first : static_cast<float>(j);
    };
    return row_scores(input.sequences, ragged, input.q.size(1), order).to(input.q.device());
  }
};

}  // namespace

std::unique_ptr<Method> make_streaming(const MethodInputs&) {
  return std::make_unique<StreamingMethod>();
}

}  // namespace seer::models
