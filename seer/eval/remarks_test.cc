#include "seer/eval/remarks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace seer::eval {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Row row_of(const std::string& method, double strength, double density, double perplexity,
           const std::string& rule = "nz_ratio") {
  Row row;
  row.method = method;
  row.setting = {rule, strength};
  row.length = 1024;
  row.block = 64;
  row.density = density;
  row.perplexity = perplexity;
  return row;
}

TEST(Remarks, NothingToSay) {
  Row dense;
  dense.method = "dense";
  dense.length = 1024;
  dense.perplexity = 9;
  EXPECT_THAT(remarks({dense, row_of("seer", 0.5, 0.49, 10), row_of("streaming", 0.5, 0.49, 11)}),
              IsEmpty());
}

TEST(Remarks, SparsityThatFewBlocksCannotGive) {
  const auto lines =
      remarks({row_of("seer", 0.1, 31 / 136.0, 10), row_of("oracle", 0.1, 31 / 136.0, 9),
               row_of("seer", 0.3, 31 / 136.0, 10)});
  EXPECT_THAT(lines, ElementsAre(AllOf(HasSubstr("16 blocks of 64: sparsity 0.9 cannot be met"),
                                       HasSubstr("0.228 instead of 0.1")),
                                 HasSubstr("sparsity 0.9 and sparsity 0.7 are the same choice")));
}

TEST(Remarks, SettingsThatAreTheSameChoiceAreNamedTogether) {
  EXPECT_THAT(remarks({row_of("seer", 0.5, 0.4, 10), row_of("seer", 0.4, 0.4, 10),
                       row_of("seer", 0.35, 0.4, 10)}),
              ElementsAre(HasSubstr("sparsity 0.5, sparsity 0.6 and sparsity 0.65 are the same")));
}

TEST(Remarks, BudgetsOfTokensThatAreTheSameNumberOfBlocks) {
  EXPECT_THAT(
      remarks({row_of("seer", 130, 0.2, 10, "row_budget"),
               row_of("seer", 160, 0.2, 10, "row_budget"), row_of("seer", 0.2, 0.2, 10),
               row_of("seer", 0.1, 0.2, 10, "top_p"), row_of("seer", 0.3, 0.2, 10, "top_p")}),
      ElementsAre(HasSubstr("row_budget 130 and row_budget 160 are the same choice")));
}

TEST(Remarks, DensitiesThatDiffer) {
  EXPECT_THAT(remarks({row_of("seer", 0.005, 0.2, 10, "threshold"),
                       row_of("oracle", 0.005, 0.1, 10, "threshold")}),
              ElementsAre(AllOf(HasSubstr("threshold 0.005"),
                                HasSubstr("from 0.100 (oracle) to 0.200 (seer)"))));
}

TEST(Remarks, ModelsAreComparedWithTheirOwnRows) {
  Row joint = row_of("seer", 0.5, 0.4, 12), streaming = row_of("streaming", 0.5, 0.49, 11);
  joint.subject.model = "joint";
  streaming.subject.model = "base";
  EXPECT_THAT(remarks({streaming, joint}),
              ElementsAre(HasSubstr("from 0.400 (joint, seer) to 0.490 (base, streaming)")));
}

TEST(Remarks, GatesThatAreWorseThanStreaming) {
  EXPECT_THAT(
      remarks({row_of("seer", 0.5, 0.49, 12.5), row_of("streaming", 0.5, 0.49, 11)}),
      ElementsAre(AllOf(HasSubstr("worse than streaming"),
                        HasSubstr("perplexity 12.500 against 11.000"), HasSubstr("--steps"))));
  // What is no number is worse than nothing: it is said elsewhere.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(remarks({row_of("seer", 0.5, 0.49, nan), row_of("streaming", 0.5, 0.49, 11)}),
              IsEmpty());
}

}  // namespace
}  // namespace seer::eval
