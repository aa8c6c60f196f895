// Golden vectors: the project's own, and those made by the published code where they are there.

#include <gtest/gtest.h>

#include "seer/io/testing/golden.h"
#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/attention/testing/attention_engines.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/pooled_attn/testing/pooled_attn_case.h"

namespace seer::kernels {
namespace {

// q [b, S, Hq, D], k [b, S, Hk, D], map [b, Hq, n, n], lse [b, Hq, S].
void check_case(const io::Golden& golden, const std::string& name) {
  const auto q_shape = golden.shape(name + "/q"), k_shape = golden.shape(name + "/k");
  const auto block = golden.number(name + ".B"), len = static_cast<int>(q_shape.at(1));
  const std::vector<int> lens(q_shape.at(0), len);
  PooledAttnCase shape = {.name = "",
                          .q_lens = lens,
                          .k_lens = lens,
                          .heads_q = static_cast<int>(q_shape.at(2)),
                          .heads_kv = static_cast<int>(k_shape.at(2)),
                          .head_dim = static_cast<int>(q_shape.at(3)),
                          .block_q = block,
                          .block_k = block};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const bool normalise : {false, true}) {
      shape.normalise = normalise;
      PooledAttnCall call(shape, dtype);
      call.q.assign(golden.floats(name + "/q"));
      call.k.assign(golden.floats(name + "/k"));
      call.v.assign(golden.floats(name + "/v"));
      const auto lse = golden.heads_first(name + "/lse");
      const auto map = golden.heads_first(name + (normalise ? "/map_normalised" : "/map"));
      const double tolerance = dtype == DType::f32 ? 1e-5 : dtype == DType::f16 ? 2e-3 : 2e-2;
      const Limits limits{tolerance, tolerance, tolerance};
      for_each_engine(dtype, [&](const TileEngine& engine) {
        SCOPED_TRACE(message(seer::name(dtype), " ", engine.name));
        pooled_attn_cpu(call.params(), engine);
        EXPECT_EQ(far_from(values_of(call.o), golden.floats(name + "/o"), limits), "");
        EXPECT_EQ(far_from(call.lse, lse, limits), "");
        EXPECT_EQ(far_from(call.map, map, limits), "");
      });
    }
  }
}

TEST(PooledAttnGolden, EveryCase) {
  for (const io::Golden& golden : io::Golden::sets("pooled_attn")) {
    for (const std::string& name : golden.cases("map")) {
      SCOPED_TRACE(golden.path() + " " + name);
      check_case(golden, name);
    }
  }
}

}  // namespace
}  // namespace seer::kernels
