#pragma once
// A picture of real heads: what attention looks at, what the gate thinks, which blocks were chosen.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <vector>

#include "seer/models/decoder.h"
#include "seer/models/sparse_attention.h"

namespace seer::eval {

// One head's maps over blocks, all f32 [R, N] on the CPU.
struct HeadMaps {
  int layer, head;
  at::Tensor truth;   // block max-pooled attention, rows normalised
  at::Tensor gate;    // softmax of the gate's scores
  at::Tensor chosen;  // 1 where the block is computed
  double recall;      // share of the true map's mass in the chosen blocks, mean over rows
};

// Runs the model densely over `ids` and keeps, from `count` layers spread over the model, the head of
// each whose attention lies least on the first and the most recent blocks.
std::vector<HeadMaps> capture_heads(const models::Decoder& model, const models::Gates& gates,
                                    const at::Tensor& ids, const torch_ops::Selection& selection,
                                    int count);

// One row a head: true map, gate, chosen blocks.
void draw_heads(const std::vector<HeadMaps>& heads, const std::string& title,
                const std::filesystem::path& png);

}  // namespace seer::eval
