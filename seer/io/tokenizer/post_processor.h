#pragma once
// `post_processor` of tokenizer.json: what stands before and after the ids of one text.

#include <cstdint>
#include <vector>

#include "seer/base/json.h"

namespace seer::io {

struct PostProcessor {
  std::vector<int32_t> before, after;
};

// Error: a kind that is not supported (named, with the list).
PostProcessor read_post_processor(const JsonNode& field);

}  // namespace seer::io
