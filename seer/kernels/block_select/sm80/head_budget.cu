// The rule head_budget: the rows of a head and sequence share one budget. Softmax values as keys of
// 30 bits; the cut is found by counting keys by their digits, three of ten bits, all rows at once.

#include "seer/kernels/block_select/gpu.h"
#include "seer/kernels/block_select/sm80/row.cuh"

namespace seer::kernels::sm80 {

namespace {

constexpr int kDigitBits = 10, kNumDigits = 3;
constexpr int kDigits = 1 << kDigitBits;

// Of one head and sequence.
struct Budget {
  int64_t
      left;     // of the budget among keys that begin with `prefix`; after the last digit: the ties
  int prefix;   // digits of the cut found so far; then the cut's key
  int found;    // not 0: `prefix` is the cut's key
  int invalid;  // not 0: some score is NaN or +inf
};

// The workspace: L heads, B sequences, R rows.
struct BudgetSpace {
  unsigned long long* histogram;  // [L, B, kDigits] keys by their next digit
  Budget* budgets;                // [L, B]
  float2* softmax;                // [L, R] largest score, sum of exp(score - it)
  int32_t* ties;                  // [L, R] keys at the cut, then how many of them are taken
  int64_t bytes;

  BudgetSpace(void* begin, int64_t heads, int64_t seqs, int64_t rows) {
    char* at = static_cast<char*>(begin);
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(at);
      at += count * static_cast<int64_t>(sizeof(**pointer));
    };
    take(&histogram, heads * seqs * kDigits);
    take(&budgets, heads * seqs);
    take(&softmax, heads * rows);
    take(&ties, heads * rows);
    bytes = at - static_cast<char*>(begin);
  }
};

constexpr int kMasked = static_cast<int>(0x807fffffu);  // the key of -inf

// Softmax values are not negative, so their bits have their order.
__device__ __forceinline__ int softmax_key(float score, float top, float sum) {
  return key_of(softmax_value(score, top, sum));
}

// The row of a warp, if it is one of a sequence.
struct Place {
  int head, sequence;
  int64_t row, at, budget;  // among all rows, of [L, R], of [L, B]

  __device__ __forceinline__ Place(const BlockSelectParams& p, const HeadRules& heads)
      : head(heads.first + blockIdx.y), sequence(p.num_seqs), row(row_of_warp(p)) {
    if (row < 0) return;
    sequence = sequence_of(p.cu_rows, p.num_seqs, row);
    at = head * p.num_rows + row;
    budget = int64_t{head} * p.num_seqs + sequence;
  }
  __device__ __forceinline__ bool exists(const BlockSelectParams& p) const {
    return sequence < p.num_seqs;
  }
  __device__ __forceinline__ SelectRow select(const BlockSelectParams& p) const {
    return select_row(p, sequence, row - p.cu_rows[sequence]);
  }
};

__device__ __forceinline__ Row<0> scores_of(const BlockSelectParams& p, const Place& place,
                                            const SelectRow& row) {
  return Row<0>(p.scores + place.at * p.num_blocks, static_cast<int>(row.blocks.end));
}

__global__ void __launch_bounds__(kRowThreads)
    row_softmax(const __grid_constant__ BlockSelectParams p,
                const __grid_constant__ HeadRules heads, const BudgetSpace space) {
  const Place place(p, heads);
  if (!place.exists(p)) return;
  const auto scores = scores_of(p, place, place.select(p));
  const float top = scores.largest();
  const float sum = static_cast<float>(scores.mass_above(-INFINITY, top));
  const bool invalid = scores.has_nan() || top == INFINITY;
  if (threadIdx.x % 32 != 0) return;
  space.softmax[place.at] = {top, sum};
  if (invalid) atomicOr(&space.budgets[place.budget].invalid, 1);
}

// Adds the keys that begin with the cut's digits so far to the histogram of their next digit.
__global__ void __launch_bounds__(kRowThreads)
    count_digits(const __grid_constant__ BlockSelectParams p,
                 const __grid_constant__ HeadRules heads, const BudgetSpace space, int digit) {
  const Place place(p, heads);
  if (!place.exists(p)) return;
  const Budget budget = space.budgets[place.budget];
  if (budget.found) return;
  const float2 softmax = space.softmax[place.at];
  unsigned long long* histogram = space.histogram + place.budget * kDigits;
  const int shift = digit * kDigitBits;
  scores_of(p, place, place.select(p)).for_each([&](float score, int) {
    const int key = softmax_key(score, softmax.x, softmax.y);
    const bool counts = key >= 0 && key >> (shift + kDigitBits) == budget.prefix;
    // Lanes with the same digit add once.
    const int bin = counts ? key >> shift & (kDigits - 1) : -1;
    const unsigned same = __match_any_sync(kAll, bin);
    if (counts && __ffs(same) - 1 == threadIdx.x % 32) {
      atomicAdd(&histogram[bin], static_cast<unsigned long long>(__popc(same)));
    }
  });
}

// A warp finds the digit of the cut of one head and sequence, and clears the histogram.
__global__ void __launch_bounds__(32)
    pick_digit(const __grid_constant__ BlockSelectParams p, const __grid_constant__ HeadRules heads,
               const BudgetSpace space, int digit) {
  const int b = blockIdx.x, lane = threadIdx.x;
  const int64_t at = int64_t{heads.first + static_cast<int>(blockIdx.y)} * p.num_seqs + b;
  Budget budget = space.budgets[at];
  unsigned long long* histogram = space.histogram + at * kDigits;
  constexpr int kPart = kDigits / 32;  // of a lane; the first lane has the largest digits
  unsigned long long sum = 0;
  for (int i = 0; i < kPart; ++i) sum += histogram[kDigits - 1 - (lane * kPart + i)];
  unsigned long long through = sum;  // of this lane and those before
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(kAll, through, step);
    if (lane >= step) through += other;
  }
  const int64_t total = static_cast<int64_t>(__shfl_sync(kAll, through, 31));
  if (digit == kNumDigits - 1) {  // the first to be found
    const int64_t rows = p.cu_rows[b + 1] - p.cu_rows[b];
    double causal = 0;
    for (int64_t m = lane; m < rows; m += 32) {
      causal += static_cast<double>(select_row(p, b, m).blocks.end);
    }
    causal = warp_sum(causal);
    budget.left = static_cast<int64_t>(heads.at[blockIdx.y].strength * causal);
    if (budget.left <= 0 || total <= budget.left) {
      budget.found = 1;
      budget.prefix = budget.left <= 0 ? INT_MAX : kMasked;
      budget.left = 0;
    }
  }
  const bool here = !budget.found && static_cast<int64_t>(through) >= budget.left &&
                    static_cast<int64_t>(through - sum) < budget.left;
  __syncwarp();  // all lanes have read the budget: shuffles do not order memory
  if (here || (budget.found && lane == 0)) {
    if (here) {
      budget.left -= static_cast<int64_t>(through - sum);
      int value = kDigits - 1 - lane * kPart;
      while (static_cast<int64_t>(histogram[value]) < budget.left) {
        budget.left -= static_cast<int64_t>(histogram[value--]);
      }
      budget.prefix = budget.prefix << kDigitBits | value;
      budget.found = digit == 0;
    }
    space.budgets[at] = budget;
  }
  __syncwarp();
  for (int i = lane; i < kDigits; i += 32) histogram[i] = 0;
}

__global__ void __launch_bounds__(kRowThreads)
    count_ties(const __grid_constant__ BlockSelectParams p, const __grid_constant__ HeadRules heads,
               const BudgetSpace space) {
  const Place place(p, heads);
  if (!place.exists(p)) return;
  const int cut = space.budgets[place.budget].prefix;
  const float2 softmax = space.softmax[place.at];
  int count = 0;
  scores_of(p, place, place.select(p)).for_each([&](float score, int) {
    count += score > -INFINITY && softmax_key(score, softmax.x, softmax.y) == cut;
  });
  count = __reduce_add_sync(kAll, count);
  if (threadIdx.x % 32 == 0) space.ties[place.at] = count;
}

// A warp deals the ties that are taken out to the rows in their order.
__global__ void __launch_bounds__(32)
    share_ties(const __grid_constant__ BlockSelectParams p, const __grid_constant__ HeadRules heads,
               const BudgetSpace space) {
  const int b = blockIdx.x, head = heads.first + blockIdx.y, lane = threadIdx.x;
  int64_t left = space.budgets[int64_t{head} * p.num_seqs + b].left;
  int32_t* ties = space.ties + head * p.num_rows;
  for (int64_t r0 = p.cu_rows[b]; r0 < p.cu_rows[b + 1]; r0 += 32) {
    const int64_t r = r0 + lane;
    const int64_t own = r < p.cu_rows[b + 1] ? ties[r] : 0;
    int64_t through = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int64_t other = __shfl_up_sync(kAll, through, step);
      if (lane >= step) through += other;
    }
    if (r < p.cu_rows[b + 1]) {
      ties[r] = static_cast<int32_t>(max(int64_t{0}, min(own, left - (through - own))));
    }
    left = max(int64_t{0}, left - __shfl_sync(kAll, through, 31));
  }
}

__global__ void __launch_bounds__(kRowThreads)
    write_rows(const __grid_constant__ BlockSelectParams p, const __grid_constant__ HeadRules heads,
               const BudgetSpace space) {
  const Place place(p, heads);
  if (place.row < 0) return;
  if (!place.exists(p)) {
    if (threadIdx.x % 32 == 0) p.count[place.at] = 0;
    return;
  }
  const Budget budget = space.budgets[place.budget];
  if (budget.invalid) return write_invalid(p, place.at);
  const float2 softmax = space.softmax[place.at];
  const SelectRow row = place.select(p);
  write_list(p, row, scores_of(p, place, row), {score_of(budget.prefix), space.ties[place.at]},
             place.at, [&](float score) { return softmax_value(score, softmax.x, softmax.y); });
}

}  // namespace

int64_t budget_workspace(int64_t num_heads, int64_t num_seqs, int64_t num_rows) {
  return BudgetSpace(nullptr, num_heads, num_seqs, num_rows).bytes;
}

void select_by_budget(const BlockSelectParams& p, const HeadRules& heads, int count, void* stream) {
  const BudgetSpace space(p.workspace, p.num_heads, p.num_seqs, p.num_rows);
  if (heads.first == 0) {
    const auto cleared = reinterpret_cast<char*>(space.softmax) - static_cast<char*>(p.workspace);
    SEER_CUDA_CHECK(cudaMemsetAsync(p.workspace, 0, cleared, static_cast<cudaStream_t>(stream)));
  }
  const dim3 rows = rows_grid(p, count);
  const dim3 budgets(static_cast<unsigned>(p.num_seqs), static_cast<unsigned>(count));
  launch(row_softmax, rows, kRowThreads, 0, stream, p, heads, space);
  for (int digit = kNumDigits - 1; digit >= 0; --digit) {
    launch(count_digits, rows, kRowThreads, 0, stream, p, heads, space, digit);
    launch(pick_digit, budgets, 32, 0, stream, p, heads, space, digit);
  }
  launch(count_ties, rows, kRowThreads, 0, stream, p, heads, space);
  launch(share_ties, budgets, 32, 0, stream, p, heads, space);
  launch(write_rows, rows, kRowThreads, 0, stream, p, heads, space);
}

}  // namespace seer::kernels::sm80
