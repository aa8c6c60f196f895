#pragma once
// Training of a language model whose layers keep their input only: what else a layer's gradient needs is
// computed a second time.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "seer/models/attention.h"
#include "seer/models/decoder.h"

namespace seer::train {

// Tokens of some sequences, packed, and what follows each of them.
struct TokenBatch {
  at::Tensor ids, targets;  // int64 [T]
  models::Sequences sequences;
};
// Of windows int64 [count, length + 1], on `device`: T = count * length. A sequence is a window; with
// `end` >= 0 it is a document, which ends with that token.
TokenBatch batch_of_windows(const at::Tensor& windows, const at::Device& device, int64_t end = -1);

// A layer's attention in its two runs, which give the same output. The last layer has the second only.
struct LayerRuns {
  models::Attention first;  // without gradients
  models::Attention again;  // with gradients
};

// What a caller is told while a gradient is computed. Any may be empty.
struct PassWatch {
  // The gradient of all weights of a part is complete: layer 0 ... layers - 1; `layers`: last norm and head
  // (not of a tied one); -1: embedding. From the last part to the first.
  std::function<void(int part)> complete;
  // `done` of `all` runs of layers.
  std::function<void(int64_t done, int64_t all)> passed;
};

// The mean negative log-likelihood of the batch's targets (nats) times `share`, [] f32; its gradient is
// added to the .grad of the model's weights, which are leaves. The layers but the last are run without
// gradients, each keeping its input; then, from the last to the first, all with gradients, and backward.
at::Tensor checkpointed_backward(const models::Decoder& model, const TokenBatch& batch,
                                 double share, const LayerRuns& runs, const PassWatch& watch);

}  // namespace seer::train
