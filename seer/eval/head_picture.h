#pragma once
// A picture of real heads: what attention looks at, what the gate thinks, which blocks were chosen.

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "seer/models/decoder.h"
#include "seer/models/sparse_attention.h"
#include "seer/report/image.h"

namespace seer::eval {

// One head's maps over blocks, all f32 [R, N] on the CPU.
struct HeadMaps {
  int layer, head;
  at::Tensor truth;   // block max-pooled attention, rows normalised
  at::Tensor gate;    // softmax of the gate's scores
  at::Tensor chosen;  // 1 where the block is computed
  double recall;      // share of the attention in the chosen blocks, mean over queries
  double density;     // share of the visible blocks that are chosen
};

// Runs the model densely over `ids` and keeps, from `count` layers spread over the model, the head of
// each whose attention lies least on the first and the most recent blocks: heads whose blocks must be
// found. `settings` (trained gates) choose the blocks. Layers whose sliding window hides keys have none.
std::vector<HeadMaps> capture_heads(const models::Decoder& model, const models::Gates& gates,
                                    const at::Tensor& ids, const models::SparseSettings& settings,
                                    int count);

// One row a head: true map, gate, chosen blocks, with axes in tokens and a legend. `about`: the model,
// the setting, for the title.
report::Image head_picture(const std::vector<HeadMaps>& heads, int block, const std::string& about);

}  // namespace seer::eval
