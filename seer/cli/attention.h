#pragma once
// Maps of real attention as results, of `seer eval attention` and at the end of `seer run`.

#include <cstdint>
#include <vector>

#include "seer/cli/settings.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/models/gates/gates.h"

namespace seer::cli {

inline constexpr int64_t kViewedTokens = 4096;

// The record of all heads' maps on these tokens (eval/attention_maps.h).
nlohmann::json attention_record(int argc, char** argv, const io::Tokenizer& tokenizer,
                                const models::Decoder& model, const models::Gates& gates,
                                const std::vector<int32_t>& ids,
                                const std::vector<torch_ops::Selection>& selections, uint64_t seed);

}  // namespace seer::cli
