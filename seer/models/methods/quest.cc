// "quest": the bound of Quest (arXiv 2406.10774, section 3.3) on what a query can score with a key of a block:
// the sum over features d of max(q_d min_d, q_d max_d), min and max over the block's keys after RoPE. Quest
// chooses for single queries of decoding. Here a block of queries has the largest bound of its queries,
// and the bound of their own block includes keys that they do not see.

#include <ATen/ops/cat.h>

#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

constexpr int64_t kMaxAndMin = 1 | 2;  // of attn_gate_pool, in this order

class QuestMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    // As exact in the type of the keys, which they are of.
    const at::Tensor bounds =
        torch_ops::attn_gate_pool(input.k.detach(), ragged.cu_k, ragged.cu_blocks,
                                  ragged.total_blocks, ragged.block, kMaxAndMin)
            .to(input.q.scalar_type());
    return scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      return of_one(one, bounds.narrow(0, one.block_at, one.blocks), ragged.block)
          .mul_(input.scale);
    });
  }

 private:
  static at::Tensor of_one(const OneSequence& one, const at::Tensor& bounds, int64_t block) {
    // The last query fills its row: a maximum does not change.
    const int64_t heads = one.q.size(1), missing = one.rows * block - one.q.size(0);
    const at::Tensor whole = at::cat({one.q, one.q.slice(0, -1).expand({missing, -1, -1})});
    // Of max and min a positive feature meets the former, a negative one the latter.
    const at::Tensor q = at::cat({whole.clamp_min(0), whole.clamp_max(0)}, 2);
    return scores_in_pieces(
        one, heads * block * one.blocks, [&](int64_t row, int64_t rows, int64_t blocks) {
          return head_products(q.narrow(0, row * block, rows * block), bounds.narrow(0, 0, blocks))
              .view({heads, rows, block, blocks})
              .amax(2);
        });
  }
};

}  // namespace

std::unique_ptr<Method> make_quest(const MethodInputs&) {
  return std::make_unique<QuestMethod>();
}

}  // namespace seer::models
