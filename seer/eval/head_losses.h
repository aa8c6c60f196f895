#pragma once
// What each head of a model loses where gates choose its blocks (models::HeadNeeds), as a table and a picture.

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "seer/report/image.h"

namespace seer::eval {

struct HeadLosses {
  at::Tensor lost;                             // [layers, Hq] f64 on the CPU, NaN: not measured
  std::vector<std::vector<int>> lookup_heads;  // of each layer
  bool is_lookup(int64_t layer, int64_t head) const;
};

// For a terminal: a line for each layer of a small model, of a larger one the 20 heads that lose most; below it the means.
std::string to_table(const HeadLosses& losses);
// A heat map with lookup heads framed; layers that are not measured are grey.
report::Image head_losses_picture(const HeadLosses& losses, const std::string& title);

}  // namespace seer::eval
