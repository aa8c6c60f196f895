// Every instruction set against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/decode_attn/decode_attn.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <functional>

#include "seer/kernels/attention/testing/call_checks.h"
#include "seer/kernels/decode_attn/cpu.h"
#include "seer/kernels/decode_attn/cpu_piece.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/decode_attn/testing/decode_attn_cases.h"

namespace seer::kernels {
namespace {

void for_each_instruction_set(const std::function<void(const DecodeKernels&)>& visit) {
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t targets = supported; targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    visit(best_decode_kernels());
  }
  hwy::SetSupportedTargetsForTest(0);  // all that the CPU has, again
}

void attend(const DecodeAttnParams& p) {
  decode_attn(p);
}

class DecodeAttnCases : public testing::TestWithParam<DecodeAttnCase> {};

TEST_P(DecodeAttnCases, EveryInstructionSetMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    DecodeAttnCall call(GetParam(), dtype);
    for_each_instruction_set([&](const DecodeKernels& kernels) {
      SCOPED_TRACE(message(name(dtype), " ", kernels.name));
      call.lse.assign(call.lse.size(), NAN);
      decode_attn_cpu(call.params(), kernels);
      EXPECT_EQ(far_from_reference(call, o_limits(dtype)), "");
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecodeAttnCases, testing::ValuesIn(kDecodeAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(DecodeAttn, OneSequenceNeedsNoPrefixSums) {
  DecodeAttnCall call({.name = "", .k_lens = {700}}, DType::f32);
  DecodeAttnParams p = call.params();
  p.cu_k = nullptr;
  decode_attn(p);
  EXPECT_EQ(far_from_reference(call, o_limits(DType::f32)), "");
}

TEST(DecodeAttn, LargeScores) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    DecodeAttnCall call({.name = "", .k_lens = {1500}}, dtype);
    grow_keys(call.k);
    decode_attn(call.params());
    EXPECT_EQ(
        far_from_reference(call, dtype == DType::f32 ? Limits{1e-4, 5e-5, 1e-8} : o_limits(dtype)),
        "");
  }
}

TEST(DecodeAttn, NanShowsInTheQueriesThatSeeItAndInNoOther) {
  for (const int key : {3, 699}) {
    DecodeAttnCall call({.name = "", .k_lens = {700, 20}}, DType::f32);
    call.k.set(key, 1, 5, NAN);
    decode_attn(call.params());
    for (int head = 0; head < 8; ++head) {
      EXPECT_EQ(std::isnan(call.o.at(0, head, 0)), head >= 4) << head;
      EXPECT_EQ(std::isnan(call.lse[head * 2]), head >= 4) << head;
      EXPECT_FALSE(std::isnan(call.o.at(1, head, 0))) << head;
    }
  }
}

TEST(DecodeAttn, KeysBehindTheWindowAreNotRead) {
  DecodeAttnCall call({.name = "", .k_lens = {1200}, .window = 100}, DType::f32);
  for (int64_t t = 0; t < 1100; ++t) {
    call.k.set(t, 0, 0, NAN);
    call.v.set(t, 0, 0, NAN);
  }
  decode_attn(call.params());
  EXPECT_FALSE(std::isnan(call.o.at(0, 0, 0)));
}

TEST(DecodeAttn, SameBitsForEveryThreadCount) {
  same_bits_for_every_thread_count<DecodeAttnCall>(
      DecodeAttnCase{.name = "", .k_lens = {2333, 40, 1029}, .head_dim = 100}, attend);
}

// A GPU finds its work by these alone.
TEST(DecodeAttn, PiecesCoverWhatIsSeenOnce) {
  for (const DecodeAttnCase& shape : kDecodeAttnCases) {
    DecodeAttnCall call(shape, DType::f32);
    for (const int split : {1, 7, 64, 512}) {
      SCOPED_TRACE(message(shape.name, " ", split));
      DecodeAttnParams p = call.params();
      p.split = split;
      std::vector<int64_t> next, pieces(shape.k_lens.size(), 0);
      for (const int len : shape.k_lens) next.push_back(window_begin(p, len));
      for (int64_t slot = 0; slot < num_slots(p); ++slot) {
        const Piece piece = piece_of(p, slot);
        const auto seq = static_cast<size_t>(piece.seq);
        if (piece.begin >= piece.end) continue;
        EXPECT_EQ(piece.begin, next[seq]);
        EXPECT_EQ(slot, first_slot_of(p, piece.seq) + pieces[seq]++);
        next[seq] = piece.end;
      }
      for (size_t b = 0; b < next.size(); ++b) {
        EXPECT_EQ(next[b], shape.k_lens[b]);
        EXPECT_EQ(pieces[b], num_pieces_of(p, shape.k_lens[b]));
      }
    }
  }
}

void expect_error(const std::function<void(DecodeAttnCall&, DecodeAttnParams&)>& spoil,
                  const char* text) {
  kernels::expect_error(DecodeAttnCall({.name = "", .k_lens = {100, 30}}, DType::f32), attend,
                        spoil, {text});
}

TEST(DecodeAttn, ErrorsSayWhatIsWrong) {
  using Call = DecodeAttnCall;
  using P = DecodeAttnParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 3; }, "8 query heads do not share 3");
  expect_error([](Call&, P& p) { p.scale = NAN; }, "scale is nan");
  expect_error([](Call&, P& p) { p.num_q_heads = 1 << 16; }, "65536 query heads, want at most");
  expect_error([](Call&, P& p) { p.num_queries = 1 << 28; }, "536870912 queries, want at most");
  expect_error([](Call&, P& p) { p.total_k = int64_t{1} << 40; }, "keys, want at most");
  expect_error([](Call&, P& p) { p.window = -1; }, "window is -1");
  expect_error([](Call&, P& p) { p.cu_k = nullptr; }, "2 sequences, and nothing says");
  expect_error([](Call& c, P&) { c.cu_k[1] = 200; }, "cu_k falls from 200 to 130");
  expect_error([](Call& c, P&) { c.cu_k[2] = 99; }, "cu_k goes from 0 to 99, want 0 to 130");
}

}  // namespace
}  // namespace seer::kernels
