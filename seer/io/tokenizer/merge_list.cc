#include "seer/io/tokenizer/merge_list.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "seer/base/error.h"

namespace seer::io {

namespace {

constexpr size_t kShort = 32;  // symbols
constexpr int32_t kNone = std::numeric_limits<int32_t>::max();

Merge find_merge(const MergeTable& merges, int32_t left, int32_t right) {
  const Merge* merge = merges.find(static_cast<uint32_t>(left), static_cast<uint32_t>(right));
  return merge ? *merge : Merge{kNone, 0};
}

// Words are mostly short: scanning all pairs beats any queue.
void merge_short(const MergeTable& merges, std::vector<int32_t>& symbols) {
  Merge found[kShort];  // of symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) found[i] = find_merge(merges, symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (found[i].rank < found[best].rank) best = i;
    }
    if (found[best].rank == kNone) break;
    symbols[best] = found[best].id;
    std::copy(symbols.data() + best + 2, symbols.data() + count, symbols.data() + best + 1);
    std::copy(found + best + 1, found + count - 1, found + best);
    --count;
    if (best > 0) found[best - 1] = find_merge(merges, symbols[best - 1], symbols[best]);
    if (best + 1 < count) found[best] = find_merge(merges, symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

struct Candidate {
  int32_t rank, position, id;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

// A list of symbols linked both ways; a symbol that was merged into its left one has id -1.
class LongWord {
 public:
  LongWord(const MergeTable& merges, std::vector<int32_t>& symbols)
      : merges_(merges), ids_(symbols), previous_(symbols.size()), next_(symbols.size()) {
    const auto count = static_cast<int32_t>(symbols.size());
    for (int32_t i = 0; i < count; ++i) {
      previous_[i] = i - 1;
      next_[i] = i + 1 < count ? i + 1 : -1;
    }
  }

  void run() {
    std::vector<Candidate> start;
    for (int32_t i = 0; next_[i] >= 0; ++i) {
      const Merge merge = find_merge(merges_, ids_[i], ids_[i + 1]);
      if (merge.rank != kNone) start.push_back({merge.rank, i, merge.id});
    }
    queue_ = Queue(std::greater<>(), std::move(start));
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const int32_t right = next_[top.position];
      // Either symbol may have changed since the candidate was queued.
      if (ids_[top.position] < 0 || right < 0) continue;
      const Merge merge = find_merge(merges_, ids_[top.position], ids_[right]);
      if (merge.rank == kNone || merge.id != top.id) continue;
      join(top.position, right, merge.id);
    }
    std::erase(ids_, -1);
  }

 private:
  using Queue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

  void join(int32_t left, int32_t right, int32_t id) {
    ids_[left] = id;
    ids_[right] = -1;
    next_[left] = next_[right];
    if (next_[left] >= 0) previous_[next_[left]] = left;
    if (previous_[left] >= 0) push(previous_[left]);
    push(left);
  }

  void push(int32_t left) {
    if (next_[left] < 0) return;
    const Merge merge = find_merge(merges_, ids_[left], ids_[next_[left]]);
    if (merge.rank != kNone) queue_.push({merge.rank, left, merge.id});
  }

  const MergeTable& merges_;
  std::vector<int32_t>& ids_;
  std::vector<int32_t> previous_, next_;
  Queue queue_;
};

}  // namespace

void merge_symbols(const MergeTable& merges, std::vector<int32_t>& symbols) {
  if (symbols.size() <= kShort) return merge_short(merges, symbols);
  SEER_CHECK(symbols.size() < static_cast<size_t>(kNone), "a word of ", symbols.size(),
             " characters is too long to encode");
  LongWord(merges, symbols).run();
}

}  // namespace seer::io
