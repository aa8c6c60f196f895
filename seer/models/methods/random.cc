// "random": blocks that have nothing to do with the text.

#include "seer/base/random.h"
#include "seer/models/methods/method.h"
#include "seer/models/methods/row_scores.h"

namespace seer::models {

// Uniform in [0, 1) by (seed, layer, sequence, head, query block, key block), blocks counted from the start
// of the sequence: a prompt in chunks draws what the whole prompt draws.
Method make_random(const MethodInputs& in) {
  const auto scores = [seed = in.settings.seed](Method::Input input, Method::Ragged ragged) {
    const uint64_t layer_key = mix64(mix64(seed) ^ static_cast<uint64_t>(input.layer));
    const auto draw = [&](int64_t head, const QueryRow& row, int64_t j) {
      uint64_t bits = layer_key;
      for (const int64_t key : {row.sequence, head, row.block, j}) {
        bits = mix64(bits ^ static_cast<uint64_t>(key));
      }
      return static_cast<float>(bits >> 40) * 0x1p-24f;
    };
    return row_scores(input.sequences, ragged, input.q.size(1), draw).to(input.q.device());
  };
  return {.scores = scores, .choose = {}, .attend = {}};
}

}  // namespace seer::models
