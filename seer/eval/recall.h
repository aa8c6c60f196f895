#pragma once
// Recall of attention by layer and head: how much of the true attention lies in the blocks that a
// method computes.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seer/eval/method.h"
#include "seer/eval/windows.h"
#include "seer/models/decoder.h"

namespace seer::eval {

// A choice of blocks to measure.
struct RecallMethod {
  models::SparseSettings sparse;
  const models::Gates* gates = nullptr;  // as SparseAttention takes them
  std::string gates_name;                // for the table; empty where trained gates choose nothing
};

struct RecallRow {
  std::string method, gates;
  Setting setting;
  int block = 64;
  int64_t length = 0;  // tokens of each document, BOS included
  int64_t documents = 0;
  double density = 1;  // blocks computed over causal blocks, measured
  // [layers, Hq] f64 on the CPU: the softmax's mass in the chosen blocks, mean over all tokens. NaN in
  // layers whose sliding window hides keys: they stay dense.
  at::Tensor recall;
  int64_t not_finite = 0;  // heads that were measured and have NaN or infinity
};
// Over the layers that are measured; NaN where some head of them is not a finite number.
double mean_recall(const RecallRow& row);
struct HeadRecall {
  int layer, head;
  double recall;
};
HeadRecall worst_head(const RecallRow& row);

// The share of each head's attention that lies in the chosen blocks [Hq], f64: mean over tokens. Log-sum-exps [Hq, T] of the keys in
// those blocks, and of all keys.
at::Tensor recall_by_head(const at::Tensor& lse_of_chosen, const at::Tensor& lse);

// The method `oracle` ranks blocks by their largest weight, as gates learn to; it is not the upper
// limit of this number, which is about their sums.
//
// A row per method, all from one dense run of the model over each window. A token's mass in its chosen
// blocks is exp(lse of those - lse of all), both of which the attention ops give: nothing is pooled.
// `done` is called after each layer of each window; `stop`, asked there, ends the work where it says true:
// rows are then of the windows that were complete, and there are none in the first. Error: every layer
// has a sliding window that is shorter than the documents.
std::vector<RecallRow> measure_recall(const models::Decoder& model,
                                      const std::vector<RecallMethod>& methods,
                                      const Windows& windows,
                                      const std::function<void()>& done = {},
                                      const std::function<bool()>& stop = {});

// What is wrong with rows that hold numbers that are not finite; empty: nothing.
std::string trouble(const std::vector<RecallRow>& rows);

// "recall" is [layers][heads], null where it is not measured.
nlohmann::json to_json(const std::vector<RecallRow>& rows);
// The rows as a table for a terminal.
std::string to_table(const std::vector<RecallRow>& rows);

}  // namespace seer::eval
