#include "seer/io/context.h"

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"

namespace seer::io {

int64_t context_length(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  int64_t original = 0;
  // yarn's files give the length before or after stretching as max_position_embeddings, those of
  // linear and dynamic too: the longer of both is not warned of.
  if (rope.type == "yarn" && rope.original_max_position > 0) original = rope.original_max_position;
  if (rope.type == "linear" || rope.type == "dynamic") original = config.max_position;
  const double stretched = std::floor(static_cast<double>(original) * rope.factor);
  return std::max(config.max_position, static_cast<int64_t>(std::min(stretched, 1e15)));
}

std::string context_warning(const ModelConfig& config, int64_t length) {
  const int64_t context = context_length(config);
  if (context <= 0 || length <= context) return "";
  return message(
      "warning: ", length, " tokens are more than the ", context,
      " that this model was made for (max_position_embeddings): what it says beyond them is "
      "not to be relied on; choose a shorter length");
}

}  // namespace seer::io
