// Golden vectors: the project's own, and those made by the published code where they are there.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "seer/io/safetensors.h"
#include "seer/kernels/attention_engines.h"
#include "seer/kernels/closeness.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/pooled_attn/pooled_attn_case.h"

namespace seer::kernels {
namespace {

using io::TensorRecord;

void set(const TensorRecord& from, AttentionTensor& to) {
  const auto* x = reinterpret_cast<const float*>(from.data);
  ASSERT_EQ(from.bytes / sizeof(float), size_t(to.tokens * to.heads * to.head_dim));
  for (int64_t t = 0; t < to.tokens; ++t) {
    for (int h = 0; h < to.heads; ++h) {
      for (int d = 0; d < to.head_dim; ++d) to.set(t, h, d, *x++);
    }
  }
}

std::string far_from_golden(const float* got, const TensorRecord& want, double tolerance) {
  return far_from(got, reinterpret_cast<const float*>(want.data), want.bytes / sizeof(float),
                  {tolerance, tolerance, tolerance});
}

// One sequence a case: q [1, S, Hq, D], map [1, Hq, n, n].
void check_case(const io::SafetensorsFile& file, const std::string& name) {
  const auto tensor = [&](const char* what) { return file.at(name + "/" + what); };
  const auto number = [&](const char* key) {
    return std::stoi(file.metadata().at(name + "." + key));
  };
  ASSERT_EQ(number("b"), 1);
  PooledAttnCase shape = {.name = "",
                          .q_lens = {number("S")},
                          .k_lens = {number("S")},
                          .heads_q = number("Hq"),
                          .heads_kv = number("Hk"),
                          .head_dim = number("D"),
                          .block_q = number("B"),
                          .block_k = number("B")};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const bool normalise : {false, true}) {
      shape.normalise = normalise;
      PooledAttnCall call(shape, dtype);
      set(tensor("q"), call.q);
      set(tensor("k"), call.k);
      set(tensor("v"), call.v);
      const double tolerance = dtype == DType::f32 ? 1e-5 : dtype == DType::f16 ? 2e-3 : 2e-2;
      for_each_engine(dtype, [&](const TileEngine& engine) {
        SCOPED_TRACE(
            message(file.path().string(), " ", name, " ", seer::name(dtype), " ", engine.name));
        pooled_attn_cpu(call.params(), engine);
        const AttentionTensor o = call.o.widened();
        EXPECT_EQ(
            far_from_golden(reinterpret_cast<const float*>(o.bytes.data()), tensor("o"), tolerance),
            "");
        EXPECT_EQ(far_from_golden(call.lse.data(), tensor("lse"), tolerance), "");
        EXPECT_EQ(far_from_golden(call.map.data(), tensor(normalise ? "map_normalised" : "map"),
                                  tolerance),
                  "");
      });
    }
  }
}

TEST(PooledAttnGolden, OwnVectors) {
  const io::SafetensorsFile file(SEER_SOURCE_DIR "/tests/golden/pooled_attn.safetensors");
  for (const char* name : {"a", "b"}) check_case(file, name);
}

TEST(PooledAttnGolden, PublishedVectors) {
  const char* given = std::getenv("SEER_GOLDEN");
  const std::filesystem::path folder = given ? given : SEER_SOURCE_DIR "/../shared/golden";
  if (!std::filesystem::is_directory(folder)) {
    GTEST_SKIP() << "no golden vectors: set SEER_GOLDEN to their folder";
  }
  const io::SafetensorsFile file(folder / "pooled_attn.safetensors");
  for (const char* name : {"a", "b", "c"}) check_case(file, name);
}

}  // namespace
}  // namespace seer::kernels
