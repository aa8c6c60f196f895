// Golden vectors: the project's own, and those made by the published code where they are there.

#include <gtest/gtest.h>

#include "seer/io/testing/golden.h"
#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/attention/testing/attention_engines.h"
#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_case.h"

namespace seer::kernels {
namespace {

std::vector<int> lengths(const std::vector<int32_t>& sums) {
  std::vector<int> out;
  for (size_t b = 0; b + 1 < sums.size(); ++b) out.push_back(sums[b + 1] - sums[b]);
  return out;
}

// The lists of a mask [sequences, list heads, rows of the longest, key blocks of the longest].
void set_lists(const std::vector<uint8_t>& mask, const std::vector<int64_t>& mask_shape,
               BlockSparseAttnCall& call) {
  const BlockSparseAttnCase& shape = call.shape;
  call.begin.clear(), call.count.clear(), call.list.clear();
  for (int head = 0; head < shape.list_heads(); ++head) {
    for (size_t b = 0; b < shape.q_lens.size(); ++b) {
      for (int row = 0; row < call.cu_rows[b + 1] - call.cu_rows[b]; ++row) {
        call.begin.push_back(int64_t(call.list.size()));
        const int64_t first =
            ((int64_t(b) * mask_shape[1] + head) * mask_shape[2] + row) * mask_shape[3];
        for (int j = 0; j * shape.block_k < shape.k_lens[b]; ++j) {
          if (mask.at(first + j)) call.list.push_back(j);
        }
        call.count.push_back(int32_t(int64_t(call.list.size()) - call.begin.back()));
      }
    }
  }
}

// q [T, Hq, D], k [S, Hk, D], mask [sequences, list heads, rows, blocks], lse [Hq, T].
void check_case(const io::Golden& golden, const std::string& name) {
  const auto q_shape = golden.shape(name + "/q"), k_shape = golden.shape(name + "/k");
  const auto mask_shape = golden.shape(name + "/mask");
  const int block = golden.number(name + ".B");
  BlockSparseAttnCase shape = {.name = "",
                               .q_lens = lengths(golden.ints(name + "/cu_q")),
                               .k_lens = lengths(golden.ints(name + "/cu_k")),
                               .heads_q = static_cast<int>(q_shape.at(1)),
                               .heads_kv = static_cast<int>(k_shape.at(1)),
                               .head_dim = static_cast<int>(q_shape.at(2)),
                               .block_q = block,
                               .block_k = block};
  shape.lists_per_kv_head = mask_shape.at(1) == shape.heads_kv;
  ASSERT_EQ(mask_shape.at(1), shape.list_heads());
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    BlockSparseAttnCall call(shape, dtype);
    call.q.assign(golden.floats(name + "/q"));
    call.k.assign(golden.floats(name + "/k"));
    call.v.assign(golden.floats(name + "/v"));
    set_lists(golden.bytes(name + "/mask"), mask_shape, call);
    const auto lse = golden.floats(name + "/lse");
    const double tolerance = dtype == DType::f32 ? 1e-5 : dtype == DType::f16 ? 2e-3 : 2e-2;
    const Limits limits{tolerance, tolerance, tolerance};
    for_each_engine(dtype, [&](const TileEngine& engine) {
      SCOPED_TRACE(message(seer::name(dtype), " ", engine.name));
      block_sparse_attn_cpu(call.params(), engine);
      EXPECT_EQ(far_from(values_of(call.o), golden.floats(name + "/o"), limits), "");
      EXPECT_EQ(far_from(call.lse, lse, limits), "");
    });
  }
}

TEST(BlockSparseAttnGolden, EveryCase) {
  for (const io::Golden& golden : io::Golden::sets("block_sparse_attn")) {
    for (const std::string& name : golden.cases("cu_q")) {
      SCOPED_TRACE(golden.path() + " " + name);
      check_case(golden, name);
    }
  }
}

}  // namespace
}  // namespace seer::kernels
