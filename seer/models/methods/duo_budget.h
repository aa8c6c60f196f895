#pragma once
// How "duo" shares out blocks among heads: some see all, the others a window.

#include <algorithm>
#include <cstdint>

namespace seer::models {

// Of a prompt of n blocks, of which row i sees i + 1. All heads together compute min(i + 1, per_row) blocks a row on
// average, exactly. Heads come in the order of need: the first ones, as many as half of that pays for, see all, if
// the others keep `fewest` blocks a row, and what is left is their windows'.
class DuoBudget {
 public:
  DuoBudget(int64_t n, int64_t per_row, int64_t heads, int64_t fewest) : n_(n) {
    const int64_t all = of_window(n), budget = heads * of_window(per_row);
    const int64_t narrow = of_window(std::min(fewest, per_row));
    retrieval_ = all > narrow
                     ? std::min(budget / 2 / all, (budget - heads * narrow) / (all - narrow))
                     : heads;
    if (retrieval_ == heads) return;
    const int64_t rest = budget - retrieval_ * all, others = heads - retrieval_;
    wider_ = window_of(rest / others + 1);
    last_wider_ = retrieval_ + rest % others;
    narrower_ = window_of(rest / others);
  }

  int64_t retrieval() const { return retrieval_; }  // heads that see all

  // Of the head at that place in the order, in that row of the prompt.
  int64_t blocks(int64_t rank, int64_t row) const {
    if (rank < retrieval_) return row + 1;
    const Window& its = rank < last_wider_ ? wider_ : narrower_;
    return std::min(row + 1, its.width + (row >= n_ - its.wider_rows ? 1 : 0));
  }

 private:
  struct Window {
    int64_t width = 0, wider_rows = 0;  // blocks a row, and the last rows, which have one more
  };

  // Blocks in all rows of a head that has `width` a row.
  int64_t of_window(int64_t width) const {
    const int64_t w = std::min(width, n_);
    return w * (w + 1) / 2 + (n_ - w) * w;
  }
  Window window_of(int64_t blocks) const {
    Window found;
    while (found.width < n_ && of_window(found.width + 1) <= blocks) ++found.width;
    found.wider_rows = std::min(n_ - found.width, blocks - of_window(found.width));
    return found;
  }

  int64_t n_, retrieval_, last_wider_ = 0;
  Window wider_, narrower_;
};

}  // namespace seer::models
