#include "seer/kernels/attn_gate/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "seer/kernels/simd/element.h"

namespace seer::kernels::reference {

std::vector<double> attn_gate_pool(const GatePoolParams& p) {
  std::vector<double> out;
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t begin = p.cu[b]; begin < p.cu[b + 1]; begin += p.block) {
      const int64_t end = std::min<int64_t>(begin + p.block, p.cu[b + 1]);
      for (int h = 0; h < p.num_heads; ++h) {
        for (const int pool : {kPoolMax, kPoolMin, kPoolAvg}) {
          for (int i = 0; i < p.head_dim && (p.pools & pool); ++i) {
            double top = -INFINITY, bottom = INFINITY, sum = 0;
            bool has_nan = false;
            for (int64_t t = begin; t < end; ++t) {
              const double x =
                  load_element(p.dtype, p.x.data, t * p.x.token_stride + h * p.x.head_stride + i);
              top = std::max(top, x);
              bottom = std::min(bottom, x);
              sum += x;
              has_nan |= std::isnan(x);
            }
            out.push_back(has_nan            ? NAN
                          : pool == kPoolMax ? top
                          : pool == kPoolMin ? bottom
                                             : sum / static_cast<double>(end - begin));
          }
        }
      }
    }
  }
  return p.cos ? attn_gate_project(rotate_in_place(p), out, {}) : out;
}

std::vector<double> attn_gate_project(const GateProjectParams& p, const std::vector<double>& x,
                                      const std::vector<double>& weight) {
  const int64_t F = p.in_dim, d = p.out_dim, half = p.rope_half;
  std::vector<double> out;
  for (int64_t r = 0; r < p.num_blocks; ++r) {
    for (int64_t h = 0; h < p.num_out_heads; ++h) {
      const int64_t in_head = h * p.num_in_heads / p.num_out_heads;
      const double* row = x.data() + (r * p.num_in_heads + in_head) * F;
      std::vector<double> y(d);
      for (int64_t j = 0; j < d; ++j) {
        if (weight.empty()) y[j] = row[j];
        for (int64_t f = 0; f < F && !weight.empty(); ++f) {
          y[j] += row[f] * weight[(h * F + f) * d + j];
        }
      }
      for (int64_t i = 0; i < half && p.cos; ++i) {
        const double a = y[i], c = y[i + half];
        const double cos = p.cos[r * half + i], sin = p.sin[r * half + i];
        y[i] = a * cos - c * sin;
        y[i + half] = c * cos + a * sin;
      }
      out.insert(out.end(), y.begin(), y.end());
    }
  }
  return out;
}

std::vector<double> attn_gate_score(const GateScoreParams& p, const std::vector<double>& q_gate,
                                    const std::vector<double>& k_gate) {
  std::vector<double> out(p.num_q_heads * p.num_rows * p.num_blocks,
                          -std::numeric_limits<double>::infinity());
  const int64_t d = p.gate_dim;
  for (int b = 0; b < p.num_seqs; ++b) {
    const int64_t len_q = p.cu_q[b + 1] - p.cu_q[b], len_k = p.cu_k[b + 1] - p.cu_k[b];
    for (int64_t h = 0; h < p.num_q_heads; ++h) {
      const int64_t gate_head = h * p.num_gate_heads / p.num_q_heads;
      for (int64_t i = 0; i < len_q; ++i) {    // every query of a row
        for (int64_t j = 0; j < len_k; ++j) {  // and every key that it sees
          if (j > i + len_k - len_q) continue;
          const int64_t row = p.cu_rows[b] + i / p.block, n = j / p.block;
          double& score = out[(h * p.num_rows + row) * p.num_blocks + n];
          if (score > -INFINITY) continue;
          double dot = 0;
          for (int64_t f = 0; f < d; ++f) {
            dot += q_gate[(row * p.num_q_heads + h) * d + f] *
                   k_gate[((p.cu_blocks[b] + n) * p.num_gate_heads + gate_head) * d + f];
          }
          score = p.scale * dot;
        }
      }
    }
  }
  return out;
}

}  // namespace seer::kernels::reference
