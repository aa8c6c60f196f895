#pragma once
// Between the training of gates and that of their lookup heads: which heads they are, and where their projections begin.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seer/base/allowed.h"
#include "seer/base/limits.h"
#include "seer/models/gates/gates.h"
#include "seer/models/gates/head_needs.h"
#include "seer/train/loop/loop.h"

namespace seer::train {

struct LookupSettings {
  double share = 0;  // of all heads; 0: none
  int rank = 32;
  int64_t windows = 8;  // sequences in which they are looked for
  int64_t steps = 0;    // 0: their projections stay as they are found
  double learning_rate = 1e-4;
};

template <class Visit>
void each_setting(LookupSettings& s, const Visit& visit) {
  visit("lookup-heads", s.share, range(0, 1),
        "share of heads that choose blocks by tokens; 0: none");
  visit("lookup-rank", s.rank, multiple(16, 16, 64), "features of a token in these heads");
  visit("lookup-windows", s.windows, range(1, limits::kSequences),
        "sequences in which they are looked for, with passages that come again");
  visit("lookup-steps", s.steps, range(0, limits::kSteps),
        "optimizer steps of their projections; 0: they stay as they are found");
  visit("lookup-learning-rate", s.learning_rate, above(0, 100), "of these steps");
}

// What every head needs in settings.windows sequences, int64 [length] as `window` gives them, each with passages that are
// repeated (drawn by `seed`). Processes share the sequences. Progress is shown as `loop` says. Error: they are too short. Interrupted: a signal came, which
// is looked for between layers.
using Window = std::function<at::Tensor(int64_t index)>;
models::HeadNeeds find_needs(const models::Decoder& model, const models::Gates& gates,
                             const Window& window, const LookupSettings& settings,
                             const LoopSettings& loop, uint64_t seed);
// The same gates with the neediest heads as lookup heads, their projections the best of their rank. Error: no head loses anything.
models::Gates with_lookup_heads(const models::Decoder& model, const models::Gates& gates,
                                const models::HeadNeeds& needs, const LookupSettings& settings,
                                uint64_t seed);
// "3 of 24 heads choose blocks by tokens: layer 2: 0, 5; layer 7: 1. They lose 61 % of what all lose"
std::string text_of_found(const models::HeadNeeds& needs, const io::GateConfig& config);

}  // namespace seer::train
