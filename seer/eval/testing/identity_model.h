#pragma once
// For tests: a model whose logits are known.

#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>

#include "seer/models/decoder.h"

namespace seer::eval::test {

// The embedding is the identity, so that hidden states are logits.
inline models::Decoder identity_model(int64_t vocabulary) {
  io::ModelConfig config;
  config.vocab_size = vocabulary;
  config.hidden_size = static_cast<int>(vocabulary);
  models::ModelWeights weights;
  weights.embedding = at::eye(vocabulary);
  weights.head = weights.embedding;
  weights.norm = at::ones({vocabulary});
  return models::Decoder(config, weights);
}

}  // namespace seer::eval::test
