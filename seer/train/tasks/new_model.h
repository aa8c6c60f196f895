#pragma once
// A model before its first training step: configuration and initial weights.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "seer/io/model_config.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/train/tasks/pretrain.h"

namespace seer::train {

// config.json of the model that the settings describe, with the tokenizer's vocabulary, BOS and
// EOS; made for windows up to `length` tokens. Weights are to be saved as bf16.
nlohmann::json new_model_config(const PretrainSettings& settings, const io::Tokenizer& tokenizer,
                                int64_t length);

// f32 weights on the CPU: matrices N(0, 0.02), but what is added to the residual stream (output and
// down projections) zero; norms one, biases zero. The same numbers for the same seed everywhere.
models::ModelWeights new_weights(const io::ModelConfig& config, uint64_t seed);

}  // namespace seer::train
