// Lists on GPU kernels: many rows of unlike lengths, few rows of long lists that are cut
// into pieces, lists that name everything. Against the reference in double.

#include <gtest/gtest.h>

#include <algorithm>

#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_gpu.h"

namespace seer::kernels {
namespace {

using Call = BlockSparseAttnCall;
using DeviceCall = BlockSparseAttnDeviceCall;
using Kernel = BlockSparseAttnGpu::Kernel;
using Params = BlockSparseAttnParams;
using Reference = BlockSparseAttnReference;

// Rows of very different lengths, empty ones too, and many more than are computed at a time; each
// launch must find the counter as the one before left it. Without a counter rows come in turn.
TEST_F(BlockSparseAttnGpu, ManyUnevenRows) {
  for (const int head_dim : {64, 96, 128, 256}) {
    Call call({.name = "",
               .q_lens = {300, 0, 330},
               .k_lens = {300, 60, 390},
               .heads_q = 64,
               .heads_kv = 8,
               .head_dim = head_dim,
               .density = 0.3},
              DType::bf16);
    for (size_t i = 0; i < call.count.size(); ++i) {
      if (i % 3 == 1) call.count[i] = std::min(call.count[i], 1);
      if (i % 7 == 5) call.count[i] = 0;
    }
    const Reference reference(call);
    each_kernel(call.params(), [&](const Kernel& kernel) {
      Params p;
      const DeviceCall on_device(call);
      for (const bool with_counter : {true, true, false}) {
        p = on_device.params();
        if (!with_counter) p.counter = nullptr;
        kernel.run(p, nullptr);
        on_device.download(call);
        EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(DType::bf16)), "") << head_dim;
      }
    });
  }
}

TEST_F(BlockSparseAttnGpu, ListsInPieces) {
  for (const int head_dim : {64, 96, 128, 256}) {
    for (const int block : {64, 128}) {
      Call call({.name = "",
                 .q_lens = {70, 64, 1},
                 .k_lens = {5000, 64, 2500},
                 .head_dim = head_dim,
                 .block_q = block,
                 .block_k = block,
                 .density = 0.9},
                DType::bf16);
      const Reference reference(call);
      each_kernel(call.params(), [&](const Kernel& kernel) {
        for (const int num_parts : {2, 4, 16}) {
          run_in_parts(kernel, call, num_parts);
          EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(DType::bf16)), "")
              << num_parts << " pieces, head size " << head_dim << ", block " << block;
        }
      });
    }
  }
}

// Lists that name everything, of enough rows for the kernel to look; then one that lacks a block.
TEST_F(BlockSparseAttnGpu, DenseLists) {
  struct {
    int head_dim, block, heads;
    bool causal;
  } constexpr kShapes[] = {
      {64, 64, 48, true}, {128, 64, 48, true}, {64, 128, 72, true}, {128, 64, 48, false}};
  for (const auto& shape : kShapes) {
    SCOPED_TRACE(
        message("head size ", shape.head_dim, ", block ", shape.block, ", causal ", shape.causal));
    Call call({.name = "",
               .q_lens = {100, 128, 0, 1, 257, 64, 70},
               .k_lens = {100, 250, 70, 130, 257, 30, 70},
               .heads_q = shape.heads,
               .heads_kv = 24,
               .head_dim = shape.head_dim,
               .block_q = shape.block,
               .block_k = shape.block,
               .density = 1,
               .causal = shape.causal},
              DType::bf16);
    Call less = call;  // a row of the third head does not see its last block
    --less.count[less.count.size() * 2 / shape.heads + 2];
    const Reference reference(call), reference_of_less(less);
    each_kernel(call.params(), [&](const Kernel& kernel) {
      for (int i = 0; i < 2; ++i) {
        run(kernel, call);
        EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(DType::bf16)), "");
      }
      run(kernel, less);
      EXPECT_EQ(reference_of_less.compare(less, o_limits_of_rounded_p(DType::bf16)), "");
    });
  }
}

TEST(BlockSparseAttnParts, FewQueriesAndManyKeys) {
  const Device device{.sm = 90, .num_sms = 132};
  const auto parts = [&](int64_t queries, int64_t keys, const Device& on) {
    BlockSparseAttnParams p{};
    p.num_seqs = 1, p.num_q_heads = 32, p.head_dim = 128, p.total_q = queries, p.total_k = keys;
    p.lists.block_q = p.lists.block_k = 64, p.lists.num_rows = (queries + 63) / 64;
    return block_sparse_attn_parts(p, on);
  };
  EXPECT_EQ(parts(32768, 32768, device), 1);
  EXPECT_EQ(parts(2048, 131072, device), 5);
  EXPECT_EQ(parts(1, 131072, device), 16);
  EXPECT_EQ(parts(64, 4096, device), 1);  // too short to cut
  EXPECT_EQ(parts(0, 0, device), 1);
  EXPECT_EQ(parts(2048, 131072, Device{.sm = 80, .num_sms = 108}), 1);
  EXPECT_EQ(parts(2048, 131072, Device{}), 1);
}

}  // namespace
}  // namespace seer::kernels
