#pragma once
// Maps of real attention for the viewer of a report: every head of a model on one window, in few enough
// bytes for a page.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/models/sparse_attention.h"

namespace seer::eval {

// Bytes that maps may have before base64: with more heads, layers are left out evenly.
inline constexpr int64_t kMapBytes = 3 << 20;

// Runs the model densely over `ids` and lets `gates` choose blocks by each of `selections`. A row a head, of layers whose
// sliding window hides no keys:
//   layer, head, lookup (whether it is a lookup head)
//   truth, gate: the largest attention weights of blocks, rows normalised, and the softmax of scores: for each row the blocks that
//     it sees, a byte each: 0 for 1e-4 and less, 255 for 1, log-scaled (base64)
//   chosen: for each selection the same blocks, a bit each, first in the lowest (base64)
//   recall, density: for each selection, as in `seer eval recall`
nlohmann::json attention_rows(const models::Decoder& model, const models::Gates& gates,
                              const at::Tensor& ids, models::SparseSettings settings,
                              const std::vector<torch_ops::Selection>& selections,
                              int64_t most_bytes = kMapBytes);

// What the maps are of: tokens, block (tokens), layers and heads of the model, choices (texts of the selections), texts (of each
// block's tokens).
nlohmann::json attention_window(const models::Decoder& model, const io::Tokenizer& tokenizer,
                                const std::vector<int32_t>& ids, int block,
                                const std::vector<torch_ops::Selection>& selections);

}  // namespace seer::eval
