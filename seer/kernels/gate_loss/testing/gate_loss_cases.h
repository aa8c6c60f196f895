#pragma once
// For tests: cases of gate_loss and their inputs, on the host.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/gate_loss/gate_loss.h"
#include "seer/kernels/gate_loss/reference.h"

namespace seer::kernels {

struct GateLossCase {
  const char* name;
  std::vector<int> rows, key_blocks;
  int heads;
  double skip;
  friend void PrintTo(const GateLossCase& c, std::ostream* out) { *out << c.name; }
};

// Causal scores and row-normalised targets; the queries are the last rows of each sequence.
struct GateLossInputs {
  GateLossInputs(const GateLossCase& c, GateLoss kind)
      : cu_rows{0}, key_blocks(c.key_blocks.begin(), c.key_blocks.end()) {
    for (const int rows : c.rows) cu_rows.push_back(cu_rows.back() + rows);
    p.num_seqs = static_cast<int>(c.rows.size());
    p.num_heads = c.heads;
    p.num_rows = cu_rows.back();
    p.num_blocks = *std::max_element(c.key_blocks.begin(), c.key_blocks.end());
    p.skip = c.skip;
    p.kind = kind;
    scores.assign(p.num_heads * p.num_rows * p.num_blocks, -INFINITY);
    target.assign(scores.size(), 0.0f);
    Random random(3);
    for (int h = 0; h < c.heads; ++h) {
      for (int b = 0; b < p.num_seqs; ++b) {
        for (int m = 0; m < c.rows[b]; ++m) {
          fill_row(random, row_at(h, cu_rows[b] + m), c.key_blocks[b] - c.rows[b] + m + 1);
        }
      }
    }
    p.target = target.data();
    p.cu_rows = cu_rows.data();
    p.num_key_blocks = key_blocks.data();
  }

  int64_t row_at(int h, int r) const { return (h * p.num_rows + r) * p.num_blocks; }

  void fill_row(Random& random, int64_t at, int seen) {
    float sum = 0;
    for (int n = 0; n < seen; ++n) {
      scores[at + n] = static_cast<float>(3 * random.normal());
      target[at + n] = n % 5 == 3 ? 0.0f : static_cast<float>(random.uniform());
      sum += target[at + n];
    }
    for (int n = 0; n < seen; ++n) target[at + n] /= sum;
  }

  double run() {
    dscores.assign(scores.size(), NAN);
    double loss = NAN;
    p.scores = scores.data();
    p.dscores = dscores.data();
    p.loss = &loss;
    gate_loss(p, {});
    return loss;
  }
  double reference_loss(const std::vector<double>& at) const { return reference::gate_loss(p, at); }

  std::vector<int32_t> cu_rows, key_blocks;
  std::vector<float> scores, target, dscores;
  GateLossParams p{};
};

const GateLossCase kGateLossCases[] = {GateLossCase{"whole", {9}, {9}, 2, 0.25},
                                       GateLossCase{"nothing_left_out", {7}, {7}, 3, 0},
                                       GateLossCase{"packed", {5, 1, 12}, {5, 1, 12}, 2, 0.25},
                                       GateLossCase{"chunk", {4, 3}, {20, 3}, 2, 0.5},
                                       GateLossCase{"empty_sequence", {0, 6}, {0, 6}, 1, 0.25},
                                       GateLossCase{"one_block", {1}, {1}, 2, 0.25},
                                       GateLossCase{"nothing", {0}, {0}, 2, 0.25}};

}  // namespace seer::kernels
