#pragma once
// How many tokens a model was made for, and how it is stretched to more.

#include <cstdint>
#include <string>

#include "seer/io/model_config.h"

namespace seer::io {

// max_position_embeddings, or the length to which the RoPE scaling stretches it; 0: not known.
int64_t context_length(const ModelConfig& config);

// One line where `length` tokens are more than that; empty where they are not. For standard error, once
// a run: results beyond the context are computed all the same.
std::string context_warning(const ModelConfig& config, int64_t length);

// config.json of the model with its RoPE stretched by YaRN (arXiv 2309.00071) to `factor` times its
// original length, that before any YaRN it has already; as transformers 4.51, which goes by the two
// lengths, and 5, which goes by the factor, read it. Factor 1: as it is.
// Error: RoPE of another type, a family that knows no YaRN, no length to start from.
nlohmann::json stretched_config(const ModelConfig& config, double factor);

}  // namespace seer::io
