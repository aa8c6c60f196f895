// Places of the rows' lists, and the rules that look at one row alone.

#include "seer/kernels/block_select/gpu.h"
#include "seer/kernels/block_select/sm80/cut.cuh"

namespace seer::kernels {
namespace sm80 {
namespace {

constexpr int kPlaceThreads = 256;

// Thread blocks that empty one head's part of the list: few beside select_rows for short lists.
constexpr int64_t kEmptyAtOnce = 1 << 14, kMostPlaceBlocks = 8;

// The first of a head's thread blocks gives its rows their places, one row after another; all of them
// empty the head's part of the list. The rows' warps wait for that before they write.
__global__ void __launch_bounds__(kPlaceThreads)
    place_rows(const __grid_constant__ BlockSelectParams p,
               const __grid_constant__ HeadRules heads) {
  __shared__ int64_t warp_sums[kPlaceThreads / 32];
  ptx::wait_for_previous_kernel();
  ptx::start_dependents();  // after it: select_rows reads scores without waiting
  const HeadRule& rule = heads.at[blockIdx.x];
  int64_t* begin = p.begin + int64_t{heads.first + static_cast<int>(blockIdx.x)} * p.num_rows;
  const int64_t part_end = rule.begin + head_capacity(p, rule.bound);
  const int64_t step = int64_t{kPlaceThreads} * gridDim.y;
  for (int64_t i = rule.begin + blockIdx.y * kPlaceThreads + threadIdx.x; i < part_end; i += step) {
    p.list[i] = kNoBlock;
  }
  if (blockIdx.y > 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t next = rule.begin;
  for (int64_t r0 = 0; r0 < p.num_rows; r0 += kPlaceThreads) {
    const int64_t r = r0 + threadIdx.x;
    int64_t size = 0;
    const int b = r < p.num_rows ? sequence_of(p.cu_rows, p.num_seqs, r) : p.num_seqs;
    if (b < p.num_seqs) {
      size = place_size(select_row(p, b, r - p.cu_rows[b]), rule.bound);
    }
    int64_t sum = size;  // of this warp's rows up to this one
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int64_t other = __shfl_up_sync(kAll, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int64_t before = 0, all = 0;
#pragma unroll
    for (int w = 0; w < kPlaceThreads / 32; ++w) {
      if (w < warp) before += warp_sums[w];
      all += warp_sums[w];
    }
    if (r < p.num_rows) begin[r] = next + before + sum - size;
    next += all;
    __syncthreads();
  }
}

// What a row's cut goes by.
enum class CutBy { count, mass, value };  // the k best; top_p; threshold

// The cut of the rules that look at softmax values, and the list.
template <CutBy kBy, class Scores>
__device__ __forceinline__ void select_by_softmax(const BlockSelectParams& p, const SelectRow& row,
                                                  const Scores& scores, double strength,
                                                  int64_t at) {
  const auto as_it_is = [](float score) { return score; };
  const float top = scores.largest();
  const bool valid = !scores.has_nan() && top < INFINITY;
  if (valid && top > -INFINITY) {
    if constexpr (kBy == CutBy::mass) {
      const Cut cut = best_mass(scores, scores.masses(top), strength, top);
      ptx::wait_for_previous_kernel();
      return write_list(p, row, scores, cut, at, as_it_is);
    } else {
      const auto sum_f32 = static_cast<float>(scores.mass_above(-INFINITY, top));
      ptx::wait_for_previous_kernel();
      return write_list(p, row, scores, {static_cast<float>(strength), 0}, at,
                        [&](float score) { return softmax_value(score, top, sum_f32); });
    }
  }
  ptx::wait_for_previous_kernel();
  if (!valid) return write_invalid(p, at);
  write_list(p, row, scores, {INFINITY, 0}, at, as_it_is);
}

// As many thread blocks of select_rows as have their registers on a multiprocessor without spills.
constexpr int blocks_per_multiprocessor(int items, CutBy by) {
#if __CUDA_ARCH__ >= 900
  constexpr int kSmall = 12;
#else
  constexpr int kSmall = 10;
#endif
  if (items == 64) return by == CutBy::count ? 4 : 3;
  if (by == CutBy::mass) return items == 16 ? 7 : 8;
  return items == 16 && by == CutBy::value ? 6 : kSmall;
}

// Starts beside place_rows, whose `begin` is needed last.
template <int kItems, CutBy kBy>
__global__ void __launch_bounds__(kRowThreads, blocks_per_multiprocessor(kItems, kBy))
    select_rows(const __grid_constant__ BlockSelectParams p,
                const __grid_constant__ HeadRules heads) {
  const int64_t r = row_of_warp(p);
  if (r < 0) return ptx::wait_for_previous_kernel();
  const HeadRule& rule = heads.at[blockIdx.y];
  const int64_t at = int64_t{heads.first + static_cast<int>(blockIdx.y)} * p.num_rows + r;
  const int b = of_warp(sequence_of(p.cu_rows, p.num_seqs, r));
  if (b == p.num_seqs) {  // behind the last row
    if (threadIdx.x % 32 == 0) p.count[at] = 0;
    return ptx::wait_for_previous_kernel();
  }
  const SelectRow row = select_row(p, b, r - p.cu_rows[b]);
  const float* from = p.scores + at * p.num_blocks;
  const int n = of_warp(static_cast<int>(row.blocks.end));
  if constexpr (kBy == CutBy::count) {
    with_row<kItems>(from, n, [&](const auto& scores) {
      const Moments moments = moments_of(scores);
      const bool nan = isnan(moments.sum) && scores.has_nan();  // sums may overflow both ways
      const Cut cut =
          nan ? Cut{INFINITY, 0} : best(scores, moments, rule.best.of(row.num_key_blocks));
      ptx::wait_for_previous_kernel();
      if (nan) return write_invalid(p, at);
      write_list(p, row, scores, cut, at, [](float score) { return score; });
    });
  } else if constexpr (kBy == CutBy::mass) {
    with_row<kItems>(from, n, [&](const auto& scores) {
      select_by_softmax<kBy>(p, row, scores, rule.strength, at);
    });
  } else {
    select_by_softmax<kBy>(p, row, Row<kItems>(from, n), rule.strength, at);
  }
}

void select_each_row(const BlockSelectParams& p, const HeadRules& heads, int count, void* stream) {
  const dim3 grid = rows_grid(p, count);
  const auto run = [&](auto* kernel) {
    launch_dependent(kernel, grid, kRowThreads, 0, stream, p, heads);
  };
  const auto run_by = [&]<CutBy kBy>(std::integral_constant<CutBy, kBy>) {
    if (p.num_blocks <= 32 * 16) return run(select_rows<16, kBy>);
    // A threshold looks at a row a few times only: more rows at once do better than registers.
    if constexpr (kBy != CutBy::value) {
      if (p.num_blocks <= 32 * 64) return run(select_rows<64, kBy>);
    }
    run(select_rows<0, kBy>);
  };
  if (select_rule(p.rule).best_of_row) {
    run_by(std::integral_constant<CutBy, CutBy::count>());
  } else if (p.rule == SelectRule::top_p) {
    run_by(std::integral_constant<CutBy, CutBy::mass>());
  } else {
    run_by(std::integral_constant<CutBy, CutBy::value>());
  }
}

}  // namespace
}  // namespace sm80

void block_select_sm80(const BlockSelectParams& p, void* stream) {
  if (p.num_rows == 0) return;
  sm80::HeadRules heads;
  int64_t begin = 0;
  for (int first = 0; first < p.num_heads; first += sm80::kHeadsPerLaunch) {
    const int count = std::min(sm80::kHeadsPerLaunch, p.num_heads - first);
    heads.first = first;
    int64_t longest = 0;  // part of the list
    for (int i = 0; i < count; ++i) {
      const int64_t bound = row_bound(p, first + i);
      heads.at[i] = {p.strength[first + i], best_of_row(p, first + i), begin, bound};
      const int64_t part = head_capacity(p, bound);
      begin += part, longest = std::max(longest, part);
    }
    const auto place_blocks = static_cast<unsigned>(
        std::clamp<int64_t>(longest / sm80::kEmptyAtOnce, 1, sm80::kMostPlaceBlocks));
    launch_dependent(sm80::place_rows, dim3(count, place_blocks), sm80::kPlaceThreads, 0, stream, p,
                     heads);
    if (p.rule == SelectRule::head_budget) {
      sm80::select_by_budget(p, heads, count, stream);
    } else {
      sm80::select_each_row(p, heads, count, stream);
    }
  }
}

}  // namespace seer::kernels
