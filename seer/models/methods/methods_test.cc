// Methods that compute scores from q and k, against loops over tokens in double precision.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <ATen/ops/full.h>

#include "seer/base/error.h"
#include "seer/models/sparse_attention.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

constexpr int64_t kTokens = 16, kHeads = 4, kKeyHeads = 2, kDim = 16;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One sequence, whose queries are its last tokens.
struct PlainSequence {
  at::Tensor q, k;  // double
  double scale;
  int64_t t = q.size(0), s = k.size(0), offset = s - t;
  int64_t rows = (t + kTokens - 1) / kTokens, blocks = (s + kTokens - 1) / kTokens;

  double product(int64_t head, int64_t i, int64_t j) const {
    const auto qs = q.accessor<double, 3>(), ks = k.accessor<double, 3>();
    double sum = 0;
    for (int64_t d = 0; d < kDim; ++d) sum += qs[i][head][d] * ks[j][head / 2][d];
    return sum;
  }
  std::vector<int64_t> queries(int64_t row) const { return tokens(row * kTokens, t); }
  std::vector<int64_t> keys(int64_t block) const { return tokens(block * kTokens, s); }
  // [heads, rows, blocks] of score(head, row, block), -inf where no key is visible.
  template <class Score>
  at::Tensor map(const Score& score) const {
    at::Tensor out = at::full({kHeads, rows, blocks}, -kInfinity, at::kDouble);
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t block = 0; block <= offset / kTokens + row; ++block) {
          out[head][row][block] = score(head, row, block);
        }
      }
    }
    return out;
  }

 private:
  static std::vector<int64_t> tokens(int64_t begin, int64_t length) {
    std::vector<int64_t> all;
    for (int64_t i = begin; i < std::min(begin + kTokens, length); ++i) all.push_back(i);
    return all;
  }
};

void softmax(std::map<int64_t, double>& row) {
  double sum = 0;
  for (auto& [key, x] : row) sum += x = std::exp(x);
  for (auto& [key, x] : row) x /= sum;
}

at::Tensor pooled(const PlainSequence& x) {
  return x.map([&](int64_t head, int64_t row, int64_t block) {
    double sum = 0;
    for (const int64_t i : x.queries(row)) {
      for (const int64_t j : x.keys(block)) sum += x.product(head, i, j);
    }
    return x.scale * sum / static_cast<double>(x.queries(row).size() * x.keys(block).size());
  });
}

at::Tensor quest(const PlainSequence& x) {
  const auto q = x.q.accessor<double, 3>(), k = x.k.accessor<double, 3>();
  return x.map([&](int64_t head, int64_t row, int64_t block) {
    double most = -kInfinity;
    for (const int64_t i : x.queries(row)) {
      double bound = 0;
      for (int64_t d = 0; d < kDim; ++d) {
        double of_feature = -kInfinity;
        for (const int64_t j : x.keys(block)) {
          of_feature = std::max(of_feature, q[i][head][d] * k[j][head / 2][d]);
        }
        bound += of_feature;
      }
      most = std::max(most, bound);
    }
    return x.scale * most;
  });
}

at::Tensor xattention(const PlainSequence& x) {
  constexpr int64_t kStride = 8;
  at::Tensor mass = x.map([](int64_t, int64_t, int64_t) { return 0; });
  for (int64_t head = 0; head < kHeads; ++head) {
    for (int64_t a = 0; a * kStride < x.t; ++a) {
      std::map<int64_t, double> row;
      for (int64_t b = 0; b * kStride < x.s && b <= a + x.offset / kStride; ++b) {
        for (int64_t i = 0; i < kStride; ++i) {
          const int64_t query = a * kStride + kStride - 1 - i, key = b * kStride + i;
          row[b] += query < x.t && key < x.s ? x.product(head, query, key) : 0;
        }
        row[b] *= x.scale / kStride;
      }
      softmax(row);
      for (const auto& [b, weight] : row) {
        mass[head][a * kStride / kTokens][b * kStride / kTokens].add_(weight);
      }
    }
  }
  return mass.clamp_min(0).log();  // 0 and so -inf where masked
}

// Attention of the last queries, summed over columns, over distances, and over blocks of keys.
struct PlainLines {
  std::vector<double> vertical, slash, block;
  PlainLines(const PlainSequence& x, int64_t head) : vertical(x.s), slash(x.s), block(x.blocks) {
    const int64_t n = std::min<int64_t>(64, x.t);
    for (int64_t i = x.t - n; i < x.t; ++i) {
      std::map<int64_t, double> row;
      for (int64_t j = 0; j <= x.offset + i; ++j) row[j] = x.scale * x.product(head, i, j);
      softmax(row);
      for (const auto& [j, weight] : row) {
        vertical[j] += weight;
        slash[x.offset + i - j] += weight;
        block[j / kTokens] += weight / static_cast<double>(n);
      }
    }
  }
};

at::Tensor largest_line(const PlainSequence& x, const std::vector<PlainLines>& lines) {
  return x.map([&](int64_t head, int64_t row, int64_t block) {
    double most = 0;
    for (const int64_t i : x.queries(row)) {
      for (const int64_t j : x.keys(block)) {
        if (j > x.offset + i) continue;
        most = std::max({most, lines[head].vertical[j], lines[head].slash[x.offset + i - j]});
      }
    }
    return most;
  });
}

std::vector<PlainLines> lines_of(const PlainSequence& x) {
  std::vector<PlainLines> lines;
  for (int64_t head = 0; head < kHeads; ++head) lines.emplace_back(x, head);
  return lines;
}

at::Tensor minference_vs(const PlainSequence& x) {
  return largest_line(x, lines_of(x));
}

bool query_aware(const PlainSequence& x, const PlainLines& lines, int64_t head) {
  const int64_t n = std::min<int64_t>(64, x.t);
  std::map<int64_t, double> estimated;
  for (int64_t block = 0; block < x.blocks; ++block) {
    for (int64_t i = x.t - n; i < x.t; ++i) {
      for (const int64_t j : x.keys(block)) estimated[block] += x.product(head, i, j);
    }
    estimated[block] *= x.scale / static_cast<double>(n * x.keys(block).size());
  }
  softmax(estimated);
  double divergence = 0;
  for (const auto& [block, p] : estimated) {
    const double is = lines.block[block], middle = (p + is) / 2;
    divergence += p * std::log(p / middle) / 2 + (is > 0 ? is * std::log(is / middle) / 2 : 0);
  }
  return std::sqrt(divergence) < 0.1;
}

at::Tensor flexprefill(const PlainSequence& x) {
  const std::vector<PlainLines> lines = lines_of(x);
  at::Tensor scores = largest_line(x, lines);
  for (int64_t head = 0; head < kHeads; ++head) {
    if (query_aware(x, lines[head], head)) scores[head].copy_(pooled(x)[head]);
  }
  return scores;
}

struct Inputs {
  Inputs(std::vector<int64_t> q_lens, std::vector<int64_t> k_lens)
      : sequences{std::move(q_lens), std::move(k_lens), 0} {
    int64_t keys = 0;
    for (const int64_t tokens : sequences.k_lens) keys += tokens;
    q = test::normal({sequences.num_tokens(), kHeads, kDim}, 3).mul_(2);
    q.select(1, 1).mul_(0.02);  // attention that means foretell
    k = test::normal({keys, kKeyHeads, kDim}, 4);
  }
  AttentionInput get() const { return {0, sequences, {}, {}, q, k, k, scale, 0}; }
  std::vector<PlainSequence> plain() const {
    std::vector<PlainSequence> all;
    int64_t q_at = 0, k_at = 0;
    for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
      const int64_t t = sequences.q_lens[b], s = sequences.k_lens[b];
      all.push_back(
          {q.narrow(0, q_at, t).to(at::kDouble), k.narrow(0, k_at, s).to(at::kDouble), scale});
      q_at += t, k_at += s;
    }
    return all;
  }
  Sequences sequences;
  at::Tensor q, k;
  double scale = 0.3;  // not 1 / sqrt(kDim)
};

const std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> kLengths{
    {{150}, {150}},
    {{1}, {1}},
    {{23}, {23}},
    {{37}, {101}},
    {{32}, {416}},
    {{90}, {154}},
    {{70, 5, 0, 33}, {70, 21, 16, 65}}};

SparseSettings chosen_by(const std::string& method, double strength, const std::string& rule) {
  SparseSettings settings;
  settings.method = method;
  settings.block = kTokens;
  settings.selection.rule = rule;
  settings.selection.strength = {strength};
  return settings;
}

// Chosen blocks of a head's row, ascending.
std::vector<int64_t> list_of(const torch_ops::BlockLists& lists, int64_t head, int64_t row) {
  const auto begin = lists.begin[head][row].item().toLong();
  const at::Tensor list =
      lists.list.slice(0, begin, begin + lists.count[head][row].item().toLong());
  std::vector<int64_t> blocks;
  for (int64_t i = 0; i < list.numel(); ++i) blocks.push_back(list[i].item().toLong());
  return blocks;
}

struct Definition {
  const char* method;
  at::Tensor (*scores)(const PlainSequence&);
};
class ByDefinition : public testing::TestWithParam<Definition> {};
INSTANTIATE_TEST_SUITE_P(Methods, ByDefinition,
                         testing::ValuesIn({Definition{"pooled", pooled},
                                            {"quest", quest},
                                            {"xattention", xattention},
                                            {"minference_vs", minference_vs},
                                            {"flexprefill", flexprefill}}),
                         [](const auto& info) { return std::string(info.param.method); });

TEST_P(ByDefinition, ScoresAreThoseOfPlainLoops) {
  const Decoder model = test::small_model();
  SparseAttention sparse(model, nullptr, chosen_by(GetParam().method, 0.4, "nz_ratio"));
  for (const auto& [q_lens, k_lens] : kLengths) {
    const Inputs inputs(q_lens, k_lens);
    const at::Tensor scores = sparse.scores(inputs.get());
    int64_t row = 0;
    for (const PlainSequence& one : inputs.plain()) {
      const at::Tensor got = scores.narrow(1, row, one.rows).to(at::kDouble);
      const at::Tensor want = GetParam().scores(one), masked = want.eq(-kInfinity);
      EXPECT_TRUE(got.narrow(2, 0, one.blocks).eq(-kInfinity).equal(masked));
      EXPECT_TRUE(got.slice(2, one.blocks).eq(-kInfinity).all().item().toBool());
      const at::Tensor off = got.narrow(2, 0, one.blocks).sub(want).abs().masked_fill(masked, 0);
      if (one.rows > 0) EXPECT_LT(off.max().item().toDouble(), 1e-5) << one.t << " of " << one.s;
      row += one.rows;
    }
    EXPECT_EQ(row, scores.size(1));
  }
}

TEST_P(ByDefinition, ListsAreTheBestBlocksAndTheSameAgain) {
  const Decoder model = test::small_model();
  SparseAttention sparse(model, nullptr, chosen_by(GetParam().method, 3 * kTokens, "row_budget"));
  const Inputs inputs({90}, {154});
  const auto choose = [&] { return sparse.select(inputs.get(), sparse.scores(inputs.get())); };
  const torch_ops::BlockLists lists = choose(), again = choose();
  EXPECT_TRUE(lists.begin.equal(again.begin) && lists.count.equal(again.count) &&
              lists.list.equal(again.list));
  const PlainSequence one = inputs.plain()[0];
  const at::Tensor want = GetParam().scores(one);
  for (int64_t head = 0; head < kHeads; ++head) {
    for (int64_t row = 0; row < one.rows; ++row) {
      const std::vector<int64_t> blocks = list_of(lists, head, row);
      const int64_t own = one.offset / kTokens + row;
      at::Tensor others = want[head][row].clone();
      double least = kInfinity;
      for (const int64_t block : blocks) {
        if (block != own) least = std::min(least, others[block].item().toDouble());
        others[block].fill_(-kInfinity);
      }
      EXPECT_GE(blocks.size(), 3u);
      EXPECT_LE(blocks.size(), 4u) << "three, and its own";
      EXPECT_GE(least, others.max().item().toDouble() - 1e-5) << head << " " << row;
    }
  }
}

TEST(FlexPrefill, BothKindsOfHeadsAreMet) {
  const PlainSequence one = Inputs({32}, {416}).plain()[0];
  std::set<bool> kinds;
  for (int64_t head = 0; head < kHeads; ++head) {
    kinds.insert(query_aware(one, PlainLines(one, head), head));
  }
  EXPECT_EQ(kinds.size(), 2u);
}

// The least value that is among the largest ones with that share of the sum.
double least_kept(std::vector<double> values, double share) {
  std::sort(values.rbegin(), values.rend());
  double sum = 0, kept = 0;
  for (const double x : values) sum += x;
  for (const double x : values) {
    kept += x;
    if (kept >= share * sum) return x;
  }
  return values.back();
}

TEST(FlexPrefill, ItsOwnRuleKeepsAShareOfTheWholeHead) {
  const Decoder model = test::small_model();
  const Inputs inputs({32}, {416});
  const PlainSequence one = inputs.plain()[0];
  const std::vector<PlainLines> lines = lines_of(one);
  const at::Tensor means = pooled(one).softmax(-1);
  for (const double gamma : {0.3, 0.8, 0.95}) {
    SparseAttention sparse(model, nullptr, chosen_by("flexprefill", gamma, "top_p"));
    SparseAttention other(model, nullptr, chosen_by("flexprefill", 0.4, "nz_ratio"));
    EXPECT_FALSE(sparse.scores(inputs.get()).defined());
    EXPECT_TRUE(other.select(inputs.get(), {})
                    .count.equal(other.select(inputs.get(), other.scores(inputs.get())).count))
        << "scores that another one has left out";
    const torch_ops::BlockLists lists = sparse.select(inputs.get(), {});
    for (int64_t head = 0; head < kHeads; ++head) {
      const auto* weight = means[head].const_data_ptr<double>();
      const double least = least_kept({weight, weight + means[head].numel()}, gamma);
      const double vertical = least_kept(lines[head].vertical, gamma),
                   slash = least_kept(lines[head].slash, gamma);
      const bool aware = query_aware(one, lines[head], head);
      for (int64_t row = 0; row < one.rows; ++row) {
        std::vector<int64_t> want;
        const int64_t own = one.offset / kTokens + row;
        for (int64_t block = 0; block <= own; ++block) {
          bool chosen =
              block == own || (aware && means[head][row][block].item().toDouble() >= least);
          for (const int64_t i : one.queries(row)) {
            for (const int64_t j : one.keys(block)) {
              const int64_t distance = one.offset + i - j;
              chosen |=
                  !aware && distance >= 0 &&
                  (lines[head].vertical[j] >= vertical || lines[head].slash[distance] >= slash);
            }
          }
          if (chosen) want.push_back(block);
        }
        EXPECT_EQ(list_of(lists, head, row), want) << gamma << " " << head << " " << row;
      }
    }
  }
}

TEST(Methods, AChunkThatLacksTheLastQueriesIsRefused) {
  const Decoder model = test::small_model();
  for (const char* method : {"minference_vs", "flexprefill"}) {
    SparseAttention sparse(model, nullptr, chosen_by(method, 0.4, "nz_ratio"));
    Inputs inputs({32}, {96});
    inputs.sequences.prompt_len = 96;  // the end
    EXPECT_NO_THROW(sparse(inputs.get()));
    inputs.sequences.prompt_len = 97;
    EXPECT_THROW(sparse(inputs.get()), Error);
  }
}

TEST(Methods, ChunksBeginAtABlock) {
  const Decoder model = test::small_model();
  SparseAttention sparse(model, nullptr, chosen_by("quest", 0.4, "nz_ratio"));
  EXPECT_THROW(sparse.scores(Inputs({30}, {100}).get()), Error);
}

}  // namespace
}  // namespace seer::models
