// "random": blocks that have nothing to do with the text.

#include "seer/base/random.h"
#include "seer/models/methods/method.h"
#include "seer/models/methods/row_scores.h"

namespace seer::models {
namespace {

class RandomMethod : public Method {
 public:
  explicit RandomMethod(uint64_t seed) : seed_(seed) {}
  // Uniform in [0, 1) by (seed, layer, sequence, head, query block, key block), blocks counted from the start
  // of the sequence: a prompt in chunks draws what the whole prompt draws.
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    const uint64_t layer_key = mix64(mix64(seed_) ^ static_cast<uint64_t>(input.layer));
    const auto draw = [&](int64_t head, const QueryRow& row, int64_t j) {
      uint64_t bits = layer_key;
      for (const int64_t key : {row.sequence, head, row.block, j}) {
        bits = mix64(bits ^ static_cast<uint64_t>(key));
      }
      return static_cast<float>(bits >> 40) * 0x1p-24f;
    };
    return row_scores(input.sequences, ragged, input.q.size(1), draw).to(input.q.device());
  }

 private:
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Method> make_random(const MethodInputs& in) {
  return std::make_unique<RandomMethod>(in.settings.seed);
}

}  // namespace seer::models
