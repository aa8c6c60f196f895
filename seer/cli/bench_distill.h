#pragma once
// seer bench distill: how fast gates are trained.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/cli/settings.h"

namespace seer::cli {

// Steps of one sequence of random ids through models with random weights; the first step is not
// timed. Rows: tokens_per_s, hours (of the published recipe, 500 steps of 16 x 64k tokens), peak_mib.
void bench_distill(const ModelArgs& model_args, const std::vector<std::string>& shapes,
                   const std::vector<int64_t>& lengths, int runs, nlohmann::json& rows);
// As text.
std::string distill_table(const nlohmann::json& rows);

}  // namespace seer::cli
