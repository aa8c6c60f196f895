#pragma once
// Text generation: a prompt is read whole or in chunks through any attention method, then tokens
// are made one at a time with dense attention over the KV cache.

#include <cstdint>
#include <functional>
#include <vector>

#include "seer/models/attention.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/decoder.h"

namespace seer::models {

// Reads a prompt into an empty cache, `chunk` tokens at a time (0: all at once; a multiple of the
// block size where `attention` is sparse), and gives each chunk's hidden states [tokens, hidden] to
// `take`.
// Error: no ids, an id outside of the vocabulary, a negative chunk.
void prefill(const Decoder& model, const std::vector<int32_t>& ids, const Attention& attention,
             int64_t chunk, SequenceCache& cache,
             const std::function<void(const at::Tensor&)>& take);

struct GenerateSettings {
  int64_t max_new_tokens = 128;
  int64_t chunk = 0;       // tokens of the prompt read at a time; 0: all
  double temperature = 0;  // 0: always the most likely token
  double top_p = 1;   // in (0, 1]: only the most likely tokens that together have this probability
  int64_t top_k = 0;  // only this many of the most likely tokens; 0: no limit
  uint64_t seed = 0;  // the same seed gives the same text
};

// The new ids, without the prompt; an end-of-text id (ModelConfig::eos_ids) is the last one if it
// comes. `attention` is used for the prompt; `on_token`, if given, gets every id as soon as it is
// known. Draws depend on seed and position alone. Error: as prefill; settings out of range.
std::vector<int32_t> generate(const Decoder& model, const std::vector<int32_t>& prompt,
                              const Attention& attention, const GenerateSettings& settings,
                              const std::function<void(int32_t)>& on_token = {});

// One id from logits [vocab] by temperature, top_k and top_p; `step` counts the tokens made so far.
// Equal logits: the lower id first.
int32_t sample(const at::Tensor& logits, const GenerateSettings& settings, int64_t step);

}  // namespace seer::models
