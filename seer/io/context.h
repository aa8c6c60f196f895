#pragma once
// How many tokens a model was made for.

#include <cstdint>
#include <string>

#include "seer/io/model_config.h"

namespace seer::io {

// max_position_embeddings, or the length to which the RoPE scaling stretches it; 0: not known.
int64_t context_length(const ModelConfig& config);

// One line where `length` tokens are more than that; empty where they are not. For standard error, once
// a run: results beyond the context are computed all the same.
std::string context_warning(const ModelConfig& config, int64_t length);

}  // namespace seer::io
