#pragma once
// How methods answer planted questions, under teacher forcing: the answer stands in the window, and each
// of its tokens is predicted from all that is before it. Logits exist for those tokens only.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/eval/pass.h"
#include "seer/eval/planted/planting.h"

namespace seer::eval {

// One question of one window.
struct Outcome {
  size_t text;  // PlantedWindow::text
  int kind, point;
  double top1;   // share of the answer's tokens that are the most likely ones
  double exact;  // 1: all of them, which is what greedy decoding would then say
  double loss;   // nats per token
};

struct PlantedRow {
  std::string method;
  Setting setting;
  int64_t length = 0, block = 0;            // tokens; no block: dense
  int64_t windows = 0;                      // passes that were made
  std::vector<Outcome> outcomes;            // window by window, in the order of Planted
  double density = 1;                       // blocks computed over causal blocks, measured
  double attention_ms = 0, prefill_ms = 0;  // medians over windows, as Row has them
};

using PlantedWatch = WatchOf<PlantedRow>;

// A row per method, as compare() makes them.
std::vector<PlantedRow> answer(const models::Decoder& model, const models::Gates* gates,
                               const std::vector<Method>& methods, const Planted& planted,
                               const PlantedWatch& watch = {});

// Outcomes of a window from hidden states [T, hidden].
std::vector<Outcome> outcomes_of(const models::Decoder& model, const at::Tensor& hidden,
                                 const PlantedWindow& window);

// A mean over questions. Its standard error takes the questions of one text together, as they may rise
// and fall with it; NaN for a single text.
struct Mean {
  double value, error;
};
struct Score {
  int64_t questions = 0;
  Mean top1{}, exact{}, loss{};
  // The same of the differences from another row, question by question; NaN where there is none.
  Mean top1_gain{}, exact_gain{}, loss_gain{};
};
constexpr int kAll = -1;
// Of the questions of a kind at a point. `dense`: null, or the row to compare with, on the questions that
// both have.
Score score(const PlantedRow& row, const PlantedRow* dense, int kind = kAll, int point = kAll);

// Windows of one length with the rows on them.
struct Answered {
  Planted planted;
  std::vector<PlantedRow> rows;
};
// The dense row; null: none.
const PlantedRow* dense_row(const std::vector<PlantedRow>& rows);

// What is wrong with rows whose loss is not a finite number; empty: nothing.
std::string trouble(const std::vector<Answered>& all);

// A row for each method and length; `cells` of it has the scores of each kind at each point.
nlohmann::json to_json(const std::vector<Answered>& all);

}  // namespace seer::eval
