#include "seer/kernels/block_select/reference.h"

#include <algorithm>
#include <cmath>

namespace seer::kernels::reference {
namespace {

struct Candidate {
  double value;
  int64_t at;  // of the mask
};

// Best first; among equals the one that comes first.
void sort(std::vector<Candidate>& candidates) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.value > b.value; });
}

class Selection {
 public:
  explicit Selection(const BlockSelectParams& p)
      : p_(p), mask_(static_cast<size_t>(p.num_heads) * p.num_rows * p.num_blocks) {}

  std::vector<char> run() {
    for (int h = 0; h < p_.num_heads; ++h) {
      for (int b = 0; b < p_.num_seqs; ++b) {
        shared_.clear();
        causal_ = 0;
        for (int64_t m = 0; m < p_.cu_rows[b + 1] - p_.cu_rows[b]; ++m) row(h, b, m);
        if (p_.rule == SelectRule::head_budget) {
          sort(shared_);
          take(shared_, static_cast<size_t>(p_.strength[h] * static_cast<double>(causal_)));
        }
      }
    }
    return mask_;
  }

 private:
  void take(const std::vector<Candidate>& sorted, size_t k) {
    for (size_t i = 0; i < std::min(k, sorted.size()); ++i) mask_[sorted[i].at] = 1;
  }

  void row(int h, int b, int64_t m) {
    const int64_t len_q = p_.cu_q[b + 1] - p_.cu_q[b], len_k = p_.cu_k[b + 1] - p_.cu_k[b];
    const int64_t first = m * p_.block + len_k - len_q;
    const int64_t last = std::min((m + 1) * p_.block, len_q) - 1 + len_k - len_q;
    const int64_t at = (h * p_.num_rows + p_.cu_rows[b] + m) * p_.num_blocks;
    const int64_t blocks = (len_k + p_.block - 1) / p_.block;
    const int64_t n = p_.prompt_blocks > 0 ? p_.prompt_blocks : blocks;
    const int64_t rows = p_.cu_rows[b + 1] - p_.cu_rows[b];

    std::vector<int64_t> seen;
    int64_t diagonal = blocks;
    for (int64_t j = 0; j < blocks; ++j) {
      const int64_t begin = j * p_.block, end = begin + p_.block;  // its positions
      if (begin <= last) seen.push_back(j);
      if (begin <= last && end > first) diagonal = std::min(diagonal, j);
    }
    causal_ += static_cast<int64_t>(seen.size());
    const bool dense = p_.prompt_blocks > 0
                           ? !seen.empty() && seen.back() >= n - p_.forced.last_dense_rows
                           : m >= rows - p_.forced.last_dense_rows;
    for (const int64_t j : seen) {
      const bool near = j >= diagonal - p_.forced.local_blocks;
      if (dense || near || j < p_.forced.sink_blocks) mask_[at + j] = 1;
    }
    apply_rule(h, n, candidates(at, seen));
  }

  std::vector<Candidate> candidates(int64_t at, const std::vector<int64_t>& seen) const {
    std::vector<Candidate> out;
    for (const int64_t j : seen) {
      if (p_.scores[at + j] > -INFINITY) out.push_back({p_.scores[at + j], at + j});
    }
    return out;
  }

  void apply_rule(int h, int64_t n, std::vector<Candidate> row) {
    const double strength = p_.strength[h];
    sort(row);
    if (p_.rule == SelectRule::nz_ratio) {
      const double r = 1 - std::sqrt(1 - strength);
      return take(row, std::max(1, static_cast<int>(r * static_cast<double>(n))));
    }
    if (p_.rule == SelectRule::row_budget) {
      return take(row, std::max(1, static_cast<int>(strength / p_.block)));
    }
    double sum = 0, mass = 0;
    for (Candidate& c : row) sum += std::exp(c.value - row[0].value);
    const double top = row.empty() ? 0 : row[0].value;
    for (Candidate& c : row) c.value = std::exp(c.value - top) / sum;
    if (p_.rule == SelectRule::head_budget) {
      // In the order of positions again, so that a stable sort sends ties to the lower index.
      std::sort(row.begin(), row.end(),
                [](const Candidate& a, const Candidate& b) { return a.at < b.at; });
      shared_.insert(shared_.end(), row.begin(), row.end());
    }
    for (const Candidate& c : row) {
      if (p_.rule == SelectRule::threshold && c.value > strength) mask_[c.at] = 1;
      if (p_.rule == SelectRule::top_p && mass < strength) mask_[c.at] = 1;
      mass += c.value;
    }
  }

  const BlockSelectParams& p_;
  std::vector<char> mask_;
  std::vector<Candidate> shared_;  // of a head's rows
  int64_t causal_ = 0;
};

}  // namespace

std::vector<char> block_select(const BlockSelectParams& p) {
  return Selection(p).run();
}

}  // namespace seer::kernels::reference
