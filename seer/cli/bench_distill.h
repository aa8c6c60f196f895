#pragma once
// seer bench distill: how fast gates are trained.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/cli/settings.h"
#include "seer/train/ranks/ranks.h"

namespace seer::cli {

// Steps of `sequences` of random ids through models with random weights, whose layers are streamed
// where the arguments say so, shared by all processes of torchrun; the first steps are not timed.
// Rows: tokens_per_s, hours (of the published recipe, 500 steps of 16 x 64k tokens); shares of the
// time (attention with the map, gates with their gradients, the rest of the model); model_tflops (the
// frozen model's forward pass alone) and mfu, its share of the chips' rate; peak_mib of one device.
void bench_distill(const ModelArgs& model_args, const std::vector<std::string>& shapes,
                   const std::vector<int64_t>& lengths, int64_t sequences, int runs,
                   train::Ranks& ranks, nlohmann::json& rows);
// As text.
std::string distill_table(const nlohmann::json& rows);

}  // namespace seer::cli
