// "minference_vs": the vertical-slash pattern of MInference (arXiv 2407.02490, section 3.2 and algorithm 2),
// for all heads. Verticals and slashes are taken by the attention that the last 64 queries give them, the
// best first, until the blocks of 64 that they cross are as many as a row may have: a block scores its best
// line. There, how many of each a head has is searched beforehand, and verticals are single keys.

#include "seer/models/methods/method.h"
#include "seer/models/methods/vertical_slash.h"

namespace seer::models {
namespace {

class VerticalSlashMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    check_has_last_queries(input, "minference_vs");
    return scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      return largest_of_blocks(last_lines(one, input.scale), one, ragged.block);
    });
  }
};

}  // namespace

std::unique_ptr<Method> make_minference_vs(const MethodInputs&) {
  return std::make_unique<VerticalSlashMethod>();
}

}  // namespace seer::models
