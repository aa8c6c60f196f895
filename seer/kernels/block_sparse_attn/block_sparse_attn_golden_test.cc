// Golden vectors: the project's own, and those made by the published code where they are there.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "seer/io/safetensors.h"
#include "seer/kernels/attention_engines.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_case.h"
#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/closeness.h"

namespace seer::kernels {
namespace {

using io::TensorRecord;

std::vector<int> lengths(const TensorRecord& cu) {
  const auto* sums = reinterpret_cast<const int32_t*>(cu.data);
  std::vector<int> out;
  for (int64_t b = 0; b + 1 < cu.shape[0]; ++b) out.push_back(sums[b + 1] - sums[b]);
  return out;
}

void set(const TensorRecord& from, AttentionTensor& to) {
  const auto* x = reinterpret_cast<const float*>(from.data);
  ASSERT_EQ(from.bytes / sizeof(float), size_t(to.tokens * to.heads * to.head_dim));
  for (int64_t t = 0; t < to.tokens; ++t) {
    for (int h = 0; h < to.heads; ++h) {
      for (int d = 0; d < to.head_dim; ++d) to.set(t, h, d, *x++);
    }
  }
}

// The lists of mask [sequences, list heads, rows of the longest, key blocks of the longest].
void set_lists(const TensorRecord& mask, BlockSparseAttnCall& call) {
  const BlockSparseAttnCase& shape = call.shape;
  call.begin.clear(), call.count.clear(), call.list.clear();
  for (int head = 0; head < shape.list_heads(); ++head) {
    for (size_t b = 0; b < shape.q_lens.size(); ++b) {
      for (int row = 0; row < call.cu_rows[b + 1] - call.cu_rows[b]; ++row) {
        call.begin.push_back(int64_t(call.list.size()));
        const int64_t first =
            ((int64_t(b) * mask.shape[1] + head) * mask.shape[2] + row) * mask.shape[3];
        for (int j = 0; j * shape.block_k < shape.k_lens[b]; ++j) {
          if (std::to_integer<int>(mask.data[first + j])) call.list.push_back(j);
        }
        call.count.push_back(int32_t(int64_t(call.list.size()) - call.begin.back()));
      }
    }
  }
}

std::string far_from_golden(const float* got, const TensorRecord& want, double tolerance) {
  return far_from(got, reinterpret_cast<const float*>(want.data), want.bytes / sizeof(float),
                  {tolerance, tolerance, tolerance});
}

void check_case(const io::SafetensorsFile& file, const std::string& name) {
  SCOPED_TRACE(file.path().string() + " " + name);
  const auto tensor = [&](const char* what) { return file.at(name + "/" + what); };
  const auto number = [&](const char* key) {
    return std::stoi(file.metadata().at(name + "." + key));
  };
  BlockSparseAttnCase shape = {.name = "",
                               .q_lens = lengths(tensor("cu_q")),
                               .k_lens = lengths(tensor("cu_k")),
                               .heads_q = number("Hq"),
                               .heads_kv = number("Hk"),
                               .head_dim = number("D"),
                               .block_q = number("B"),
                               .block_k = number("B")};
  shape.lists_per_kv_head = number("list_heads") == shape.heads_kv;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    BlockSparseAttnCall call(shape, dtype);
    set(tensor("q"), call.q);
    set(tensor("k"), call.k);
    set(tensor("v"), call.v);
    set_lists(tensor("mask"), call);
    const double tolerance = dtype == DType::f32 ? 1e-5 : dtype == DType::f16 ? 2e-3 : 2e-2;
    for_each_engine(dtype, [&](const TileEngine& engine) {
      SCOPED_TRACE(message(seer::name(dtype), " ", engine.name));
      block_sparse_attn_cpu(call.params(), engine);
      const AttentionTensor o = call.o.widened();
      EXPECT_EQ(
          far_from_golden(reinterpret_cast<const float*>(o.bytes.data()), tensor("o"), tolerance),
          "");
      EXPECT_EQ(far_from_golden(call.lse.data(), tensor("lse"), tolerance), "");
    });
  }
}

TEST(BlockSparseAttnGolden, OwnVectors) {
  const io::SafetensorsFile file(SEER_SOURCE_DIR "/tests/golden/block_sparse_attn.safetensors");
  for (const char* name : {"a", "b"}) check_case(file, name);
}

TEST(BlockSparseAttnGolden, PublishedVectors) {
  const char* given = std::getenv("SEER_GOLDEN");
  const std::filesystem::path folder = given ? given : SEER_SOURCE_DIR "/../shared/golden";
  if (!std::filesystem::is_directory(folder)) {
    GTEST_SKIP() << "no golden vectors: set SEER_GOLDEN to their folder";
  }
  const io::SafetensorsFile file(folder / "block_sparse_attn.safetensors");
  for (const char* name : {"a", "b", "c", "d"}) check_case(file, name);
}

}  // namespace
}  // namespace seer::kernels
