#pragma once
// For tests: shapes, rules and random scores of block_select, on the host.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/block_select/block_select.h"

namespace seer::kernels {

struct SelectShape {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int heads, block;
  int64_t prompt_blocks;
  SelectForced forced;
  friend void PrintTo(const SelectShape& s, std::ostream* out) { *out << s.name; }
};

struct SelectInputs {
  SelectInputs(const SelectShape& s, SelectRule rule, std::vector<double> strengths)
      : strength(std::move(strengths)), cu_q{0}, cu_k{0}, cu_rows{0} {
    p.num_seqs = static_cast<int>(s.q_lens.size());
    for (int b = 0; b < p.num_seqs; ++b) {
      cu_q.push_back(cu_q.back() + s.q_lens[b]);
      cu_k.push_back(cu_k.back() + s.k_lens[b]);
      cu_rows.push_back(cu_rows.back() + (s.q_lens[b] + s.block - 1) / s.block);
      p.num_blocks = std::max<int64_t>(p.num_blocks, (s.k_lens[b] + s.block - 1) / s.block);
    }
    p.num_heads = s.heads;
    p.num_rows = cu_rows.back();
    p.block = s.block;
    p.prompt_blocks = s.prompt_blocks;
    p.forced = s.forced;
    p.rule = rule;
    scores.resize(p.num_heads * p.num_rows * p.num_blocks);
    Random random(11);
    for (float& x : scores) x = static_cast<float>(2 * random.normal());
  }

  // Few values, so that nearly every cut goes through a tie; and masked blocks among them.
  void make_ties() {
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = i % 5 == 1 ? -0.0f : 0.0f;  // equal
      if (i % 7 == 2) scores[i] = -INFINITY;
      if (i % 11 == 1) scores[i] = 1;
    }
  }

  // Everything in p; the list has guards behind its end.
  void prepare() {
    begin.assign(p.num_heads * p.num_rows, -1);
    count.assign(begin.size(), -1);
    p.scores = scores.data();
    p.cu_q = cu_q.data();
    p.cu_k = cu_k.data();
    p.cu_rows = cu_rows.data();
    p.strength = strength.data();
    p.begin = begin.data();
    p.count = count.data();
    p.capacity = block_select_capacity(p);
    list.assign(p.capacity + 8, -7);
    p.list = list.data();
  }

  // On the CPU.
  std::vector<char> run() {
    prepare();
    block_select(p, {});
    return mask();
  }

  std::vector<char> mask() const {
    EXPECT_THAT(std::vector<int32_t>(list.end() - 8, list.end()), testing::Each(-7));
    std::vector<char> out(scores.size());
    std::vector<char> is_gap(list.size() - 8, true);
    for (size_t row = 0; row < begin.size(); ++row) {
      for (int32_t i = 0; i < count[row]; ++i) {
        const int32_t n = list[begin[row] + i];
        EXPECT_TRUE(n >= 0 && n < p.num_blocks && (i == 0 || n > list[begin[row] + i - 1]));
        out[row * p.num_blocks + n] = 1;
        is_gap[begin[row] + i] = false;
      }
    }
    for (size_t i = 0; i < is_gap.size(); ++i) {
      EXPECT_EQ(list[i] == kNoBlock, is_gap[i]) << "entry " << i << " is " << list[i];
    }
    return out;
  }

  std::vector<double> strength;
  std::vector<int32_t> cu_q, cu_k, cu_rows, count, list;
  std::vector<int64_t> begin;
  std::vector<float> scores;
  BlockSelectParams p{};
};

const SelectShape kSelectShapes[] = {
    {"whole", {640}, {640}, 3, 16, 0, {0, 0, 0}},
    {"odd_tail", {333}, {333}, 2, 16, 0, {0, 0, 2}},
    {"packed", {100, 16, 1, 300}, {100, 16, 1, 300}, 2, 16, 0, {1, 2, 1}},
    {"chunk", {64}, {320}, 2, 16, 40, {0, 0, 2}},
    {"last_chunk", {64}, {640}, 2, 16, 40, {2, 1, 2}},
    {"chunk_off_the_grid", {90}, {331}, 2, 16, 21, {0, 1, 2}},
    {"q_longer_than_k", {200}, {77}, 2, 16, 0, {1, 1, 0}},
    {"empty_sequence", {0, 50}, {33, 50}, 1, 16, 0, {0, 0, 1}},
    {"one_token", {1}, {1}, 2, 64, 0, {0, 0, 0}},
    {"everything_forced", {160}, {160}, 1, 16, 0, {20, 0, 0}},
    {"long_rows", {320}, {4000}, 2, 16, 0, {0, 0, 0}},
};
const struct {
  SelectRule rule;
  const char* name;
  double strength;
} kSelectRules[] = {{SelectRule::nz_ratio, "nz_ratio_01", 0.1},
                    {SelectRule::nz_ratio, "nz_ratio_05", 0.5},
                    {SelectRule::nz_ratio, "nz_ratio_0", 0},
                    {SelectRule::nz_ratio, "nz_ratio_1", 1},
                    {SelectRule::threshold, "threshold", 0.02},
                    {SelectRule::threshold, "threshold_0", 0},
                    {SelectRule::top_p, "top_p_08", 0.8},
                    {SelectRule::top_p, "top_p_0", 0},
                    {SelectRule::top_p, "top_p_1", 1},
                    {SelectRule::row_budget, "row_budget", 100},
                    {SelectRule::row_budget, "row_budget_0", 3},
                    {SelectRule::head_budget, "head_budget", 0.2},
                    {SelectRule::head_budget, "head_budget_1", 1}};

}  // namespace seer::kernels
