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
  double share = -1;  // of all heads; 0: none; -1: by `cost`, or a tenth where some can be found
  double cost = 0;    // the most that their scores cost (lookup_cost()); 0: no limit
  int rank = 32;
  int64_t windows = 8;  // sequences in which they are looked for
  int64_t steps = 0;    // 0: their projections stay as they are found
  double learning_rate = 1e-4;
};

template <class Visit>
void each_setting(LookupSettings& s, const Visit& visit) {
  visit("lookup-heads", s.share, or_automatic(range(0, 1), -1),
        "share of heads that choose blocks by tokens; 0: none; -1: 0.1 where some can be found");
  visit("lookup-cost", s.cost, or_automatic(above(0, 1000), 0),
        "instead: most work of their scores, as a share of sparse attention's at a density of 0.1 "
        "(heads = cost x 2 x head size x 0.1 / rank); 0: no limit");
  visit("lookup-rank", s.rank, one_of_numbers({16, 32, 64}), "features of a token in these heads");
  visit("lookup-windows", s.windows, range(1, limits::kSequences),
        "sequences in which they are looked for, with phrases that come again");
  visit("lookup-steps", s.steps, range(0, limits::kSteps),
        "optimizer steps of their projections; 0: they stay as they are found");
  visit("lookup-learning-rate", s.learning_rate, above(0, 100), "of these steps");
}

// UsageError: both a share and a cost.
void check(const LookupSettings& settings);

// What scores by tokens cost in that share of the heads, as a share of what sparse attention of all heads costs: for each pair
// of tokens 2 x rank operations, where attention has 4 x head_dim in the pairs that it computes, a share of
// `density`. So share x rank / (2 x head_dim x density).
double lookup_cost(double share, int rank, int head_dim,
                   double density = models::HeadNeeds::kDensity);

// The share of the heads that become lookup heads, and where it is 0 though none was asked for, why.
struct LookupShare {
  double share = 0;
  std::string why_none;
};
// What the settings ask for: a share, or as many heads as a cost allows; or neither, and then a tenth, where gates of that block in
// sequences of `length` tokens can have them. UsageError: a cost below that of one head.
LookupShare lookup_share(const LookupSettings& settings, const io::ModelConfig& model, int block,
                         int64_t length);

// What every head needs in settings.windows sequences, int64 [length] as `window` gives them, each with phrases that are
// repeated (drawn by `seed`). Processes share the sequences. Progress is shown as `loop` says. Error: they are too short. Interrupted: a signal came, which
// is looked for between layers.
using Window = std::function<at::Tensor(int64_t index)>;
models::HeadNeeds find_needs(const models::Decoder& model, const models::Gates& gates,
                             const Window& window, const LookupSettings& settings,
                             const LoopSettings& loop, uint64_t seed);
// Why no head can be a lookup head: none loses anything, or none chooses blocks; empty: some can.
std::string why_none(const models::HeadNeeds& needs);
// The same gates with the neediest heads as lookup heads, settings.share of all (0 ... 1), their projections the best of their
// rank. Error: why_none().
models::Gates with_lookup_heads(const models::Decoder& model, const models::Gates& gates,
                                const models::HeadNeeds& needs, const LookupSettings& settings,
                                uint64_t seed);
// "3 of 24 heads choose blocks by tokens: layer 2: 0, 5; layer 7: 1. They lose 61 % of what all lose"
std::string text_of_found(const models::HeadNeeds& needs, const io::GateConfig& config);

}  // namespace seer::train
