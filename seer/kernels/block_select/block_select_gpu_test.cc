// Every rule on a GPU against its definition, as a call and as a graph: ties, forced blocks, chunks,
// scores that are not valid.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/kernels/block_select/reference.h"
#include "seer/kernels/block_select/testing/block_select_cases.h"
#include "seer/kernels/testing/gpu_run.h"

namespace seer::kernels {
namespace {

// The lists of `in` as a GPU makes them; begin, count and list of `in` become them.
void run_on_gpu(SelectInputs& in) {
  in.prepare();
  const Device device = cuda_device(0);
  const DeviceBuffer scores(in.scores), cu_q(in.cu_q), cu_k(in.cu_k), cu_rows(in.cu_rows);
  DeviceBuffer begin(in.begin), count(in.count), list(in.list);
  BlockSelectParams p = in.p;
  p.scores = scores.as<float>();
  p.cu_q = cu_q.as<int32_t>();
  p.cu_k = cu_k.as<int32_t>();
  p.cu_rows = cu_rows.as<int32_t>();
  p.begin = begin.as<int64_t>();
  p.count = count.as<int32_t>();
  p.list = list.as<int32_t>();
  p.workspace_bytes = block_select_workspace(p, device);
  const DeviceBuffer workspace(p.workspace_bytes);
  p.workspace = workspace.as<void>();
  block_select(p, device);
  begin.download(in.begin);
  count.download(in.count);
  list.download(in.list);
  const auto first_begin = in.begin;
  const auto first_count = in.count;
  const auto first_list = in.list;
  run_captured([&](void* stream) { block_select(p, device, stream); });
  begin.download(in.begin);
  count.download(in.count);
  list.download(in.list);
  EXPECT_EQ(in.begin, first_begin);
  EXPECT_EQ(in.count, first_count);
  EXPECT_EQ(in.list, first_list);
}

class BlockSelectGpu : public OnGpu<testing::TestWithParam<SelectShape>> {
 protected:
  template <class Test>
  static void for_each_rule(const Test& test) {
    for (const auto& rule : kSelectRules) {
      SCOPED_TRACE(rule.name);
      test(SelectInputs(GetParam(), rule.rule,
                        std::vector<double>(GetParam().heads, rule.strength)));
    }
  }
};

TEST_P(BlockSelectGpu, AgreesWithDefinition) {
  for_each_rule([](SelectInputs in) {
    run_on_gpu(in);
    EXPECT_EQ(in.mask(), reference::block_select(in.p));
    SelectInputs on_cpu = in;
    on_cpu.run();
    EXPECT_EQ(in.begin, on_cpu.begin);
    EXPECT_EQ(in.count, on_cpu.count);
    EXPECT_EQ(in.list, on_cpu.list);
  });
}

TEST_P(BlockSelectGpu, TiesAndMaskedBlocks) {
  for_each_rule([](SelectInputs in) {
    if (in.p.rule == SelectRule::head_budget) return;
    in.make_ties();
    run_on_gpu(in);
    EXPECT_EQ(in.mask(), reference::block_select(in.p));
  });
}

// Rows of more blocks than a warp keeps in registers, of each size that has a kernel.
const SelectShape kLongShapes[] = {{"blocks_700", {1000, 100}, {11200, 3000}, 2, 16, 0, {1, 2, 1}},
                                   {"blocks_3000", {300}, {48000}, 2, 16, 3100, {1, 0, 2}},
                                   {"many_rows", {8200, 100}, {8200, 400}, 2, 16, 0, {1, 0, 2}}};

INSTANTIATE_TEST_SUITE_P(Shapes, BlockSelectGpu, testing::ValuesIn(kSelectShapes),
                         [](const auto& test) { return std::string(test.param.name); });
INSTANTIATE_TEST_SUITE_P(Long, BlockSelectGpu, testing::ValuesIn(kLongShapes),
                         [](const auto& test) { return std::string(test.param.name); });

class BlockSelectGpuRules : public OnGpu<> {};

TEST_F(BlockSelectGpuRules, TiesGoToTheLowerIndex) {
  SelectInputs in({"", {640}, {640}, 1, 16, 0, {0, 0, 0}}, SelectRule::row_budget, {16 * 3.0});
  std::fill(in.scores.begin(), in.scores.end(), 0.5f);
  run_on_gpu(in);
  EXPECT_EQ(std::vector<int32_t>(&in.list[in.begin[20]], &in.list[in.begin[20] + in.count[20]]),
            (std::vector<int32_t>{0, 1, 2, 20}));
}

// Rows of equal scores: softmax values tie between rows of one length. The lower rows get the ties.
TEST_F(BlockSelectGpuRules, TiesOfAHeadGoToTheLowerRow) {
  SelectInputs in({"", {320}, {320}, 1, 16, 0, {0, 0, 0}}, SelectRule::head_budget, {0.0});
  std::fill(in.scores.begin(), in.scores.end(), -INFINITY);
  for (int m = 4; m < 20; ++m) {
    for (int n = 0; n < 4; ++n) in.scores[m * 20 + n] = 1;  // 1/4 each
  }
  in.strength = {10.5 / 210};  // of 210 causal blocks
  run_on_gpu(in);
  for (int m = 0; m < 20; ++m) {
    const int ties = m == 4 || m == 5 ? 4 : m == 6 ? 2 : 0;
    EXPECT_EQ(in.count[m], 1 + ties) << m;
  }
  const std::vector<char> mask = in.mask();
  EXPECT_TRUE(mask[6 * 20 + 1] && !mask[6 * 20 + 2]);
}

// A kernel gets the rules of 64 heads among its arguments; here there are more.
TEST_F(BlockSelectGpuRules, StrengthPerHead) {
  for (const SelectRule rule : {SelectRule::nz_ratio, SelectRule::top_p, SelectRule::head_budget}) {
    std::vector<double> strengths;
    for (int h = 0; h < 150; ++h) strengths.push_back(h / 150.0);
    SelectInputs in({"", {640, 77}, {640, 77}, 150, 16, 0, {0, 0, 1}}, rule, strengths);
    run_on_gpu(in);
    EXPECT_EQ(in.mask(), reference::block_select(in.p));
  }
}

TEST_F(BlockSelectGpuRules, MaskedNanIsNotRead) {
  for (const auto& rule : kSelectRules) {
    SelectInputs in({"", {64}, {64}, 1, 16, 0, {0, 0, 0}}, rule.rule, {rule.strength});
    for (int m = 0; m < 4; ++m) {
      for (int n = m + 1; n < 4; ++n) in.scores[m * 4 + n] = NAN;
    }
    run_on_gpu(in);
    EXPECT_EQ(in.mask(), reference::block_select(in.p)) << rule.name;
  }
}

// begin of every row is -1 and its list empty where the scores are not valid, and nowhere else.
TEST_F(BlockSelectGpuRules, InvalidScoresShow) {
  const auto rows_without_lists = [](SelectRule rule, float score) {
    SelectInputs in({"", {64}, {64}, 2, 16, 0, {0, 0, 0}}, rule, {0.5, 0.5});
    in.scores[16 + 12 + 2] = score;  // head 1, row 3
    run_on_gpu(in);
    std::vector<int> rows;
    in.mask();  // where a list is missing its place is a gap
    for (int at = 0; at < 8; ++at) {
      if (in.begin[at] == -1) rows.push_back(at);
      EXPECT_EQ(in.begin[at] == -1, in.count[at] == 0) << at;
    }
    return rows;
  };
  const std::vector<int> none, row = {7}, head = {4, 5, 6, 7};
  EXPECT_EQ(rows_without_lists(SelectRule::nz_ratio, NAN), row);
  EXPECT_EQ(rows_without_lists(SelectRule::row_budget, -NAN), row);
  EXPECT_EQ(rows_without_lists(SelectRule::nz_ratio, INFINITY), none);
  EXPECT_EQ(rows_without_lists(SelectRule::top_p, INFINITY), row);
  EXPECT_EQ(rows_without_lists(SelectRule::threshold, NAN), row);
  EXPECT_EQ(rows_without_lists(SelectRule::head_budget, NAN), head);
}

TEST(BlockSelectGpuErrors, SmallWorkspace) {
  SelectInputs in({"", {64}, {64}, 1, 16, 0, {0, 0, 0}}, SelectRule::head_budget, {0.5});
  in.prepare();
  try {
    block_select(in.p, Device{.sm = 80, .num_sms = 100});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("the workspace has 0 bytes, want "));
  }
}

}  // namespace
}  // namespace seer::kernels
