#pragma once
// Rotary settings of config.json, in each of the spellings that Hugging Face files have had.

#include <cstdint>
#include <string>

#include "seer/base/json.h"
#include "seer/base/rope_table.h"

namespace seer::io {

// `rope_scaling` with "type" (old) or "rope_type", beside a top-level rope_theta and
// partial_rotary_factor; or the newer `rope_parameters` that holds them all. Where both are there,
// transformers takes `rope_scaling`; so does this. What is left out takes transformers' default.
// Error: a type that is not supported (named, with the list), a setting that is missing or impossible.
RopeConfig read_rope_config(const JsonNode& fields, const std::string& model_type, int head_dim,
                            int64_t max_position);

}  // namespace seer::io
