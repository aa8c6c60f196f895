#include "seer/kernels/block_sparse_attn/drawn_lists.h"

#include <algorithm>
#include <numeric>

#include "seer/base/error.h"
#include "seer/base/random.h"

namespace seer::kernels {
namespace {

constexpr int kRecent = 4, kSinks = 1;  // blocks that a gate's lists always keep

// Up to 0.6 of the way from `mean` to the nearer end of 0 ... 1; share: -1 ... 1.
double spread(double mean, double share) {
  return mean + std::min(mean, 1 - mean) * 0.6 * share;
}

// Evenly spread over -1 ... 1 in random order, so that the mean over heads stays what was asked for.
std::vector<double> head_shares(int num_heads, uint64_t seed) {
  Random random(seed, static_cast<uint64_t>(num_heads));
  std::vector<double> shares(num_heads);
  for (int h = 0; h < num_heads; ++h) shares[h] = (h + 0.5) / num_heads * 2 - 1;
  for (int h = num_heads - 1; h > 0; --h) std::swap(shares[h], shares[random.below(h + 1)]);
  return shares;
}

// A gate's choice in one head.
class GateHead {
 public:
  GateHead(double density, double share, int num_blocks, Random& random)
      : random_(random), budget_(spread(density, share)), column_(num_blocks) {
    for (int j = 0; j < num_blocks; ++j) column_[j] = random_.uniform() < 0.4 * budget_;
  }
  // The probabilities of a row's blocks.
  void begin_row(int visible) {
    visible_ = visible;
    int kept = 0;
    for (int j = 0; j < visible; ++j) kept += is_kept(j);
    const double wanted = spread(budget_, random_.uniform() * 2 - 1) * visible;
    scattered_ = std::max(wanted - kept, 0.0) / std::max(visible - kept, 1);
  }
  bool takes(int j) { return is_kept(j) || random_.uniform() < scattered_; }

 private:
  bool is_kept(int j) const { return j < kSinks || j >= visible_ - kRecent || column_[j]; }

  Random& random_;
  double budget_, scattered_ = 0;
  std::vector<uint8_t> column_;
  int visible_ = 0;
};

struct HeadLists {
  std::vector<int32_t> count, list;
};

// take(j) of each row's blocks, behind begin_row(visible).
template <class BeginRow, class Take>
HeadLists lists_of_head(const std::vector<int>& visible, bool keep_diagonal,
                        const BeginRow& begin_row, const Take& take) {
  HeadLists out;
  for (const int end : visible) {
    begin_row(end);
    const size_t before = out.list.size();
    for (int j = 0; j < end; ++j) {
      if (take(j) || (keep_diagonal && j == end - 1)) out.list.push_back(j);
    }
    out.count.push_back(static_cast<int32_t>(out.list.size() - before));
  }
  return out;
}

}  // namespace

DrawnLists draw_lists(std::string_view kind, double density, int num_heads,
                      const std::vector<int>& visible, uint64_t seed, bool keep_diagonal) {
  SEER_CHECK(kind == "random" || kind == "gate", "lists \"", kind, "\": want random or gate");
  const int num_blocks = visible.empty() ? 0 : *std::max_element(visible.begin(), visible.end());
  const bool is_gate = kind == "gate" && density < 1;
  const std::vector<double> shares = head_shares(num_heads, seed);
  std::vector<HeadLists> heads(num_heads);
#pragma omp parallel for schedule(dynamic)
  for (int h = 0; h < num_heads; ++h) {
    Random random(seed, static_cast<uint64_t>(h));
    if (is_gate) {
      GateHead gate(density, shares[h], num_blocks, random);
      heads[h] = lists_of_head(
          visible, keep_diagonal, [&](int end) { gate.begin_row(end); },
          [&](int j) { return gate.takes(j); });
    } else {
      heads[h] = lists_of_head(
          visible, keep_diagonal, [](int) {}, [&](int) { return random.uniform() < density; });
    }
  }
  DrawnLists out;
  int64_t at = 0;
  for (const HeadLists& head : heads) {
    for (const int32_t count : head.count) {
      out.begin.push_back(at);
      at += count;
    }
    out.count.insert(out.count.end(), head.count.begin(), head.count.end());
    out.list.insert(out.list.end(), head.list.begin(), head.list.end());
  }
  return out;
}

std::vector<int> causal_rows(int rows, int blocks) {
  std::vector<int> visible(rows);
  std::iota(visible.begin(), visible.end(), blocks - rows + 1);
  return visible;
}

}  // namespace seer::kernels

int64_t seer_draw_lists(const char* kind, double density, int heads, int rows, int blocks,
                        uint64_t seed, int64_t* begin, int32_t* count, int32_t* list) {
  const std::string_view name = kind;
  if (name != "random" && name != "gate") return -1;
  const auto lists = seer::kernels::draw_lists(name, density, heads,
                                               seer::kernels::causal_rows(rows, blocks), seed);
  std::copy(lists.begin.begin(), lists.begin.end(), begin);
  std::copy(lists.count.begin(), lists.count.end(), count);
  std::copy(lists.list.begin(), lists.list.end(), list);
  return static_cast<int64_t>(lists.list.size());
}
