#pragma once
// Perplexity of a model under several attention methods on the same texts, with what each method kept
// and cost. Protocol of the published tables: documents cut to the length, BOS first, exp of the mean
// over documents of the mean negative log-likelihood.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seer/eval/method.h"
#include "seer/eval/windows.h"
#include "seer/models/decoder.h"
#include "seer/models/sparse_attention.h"

namespace seer::eval {

struct Row {
  std::string method;  // "dense", "seer", "random", "streaming", "untrained", "oracle"
  Setting setting;     // asked for
  int64_t length = 0;  // tokens of each document, BOS included
  int64_t documents = 0;
  double perplexity = 0;
  double density = 1;       // blocks computed over causal blocks, measured
  double attention_ms = 0;  // median over documents: gate, selection and attention, all layers
  double score_ms = 0, select_ms = 0;  // of which
  double prefill_ms = 0;  // median over documents: the whole forward pass but the output head
};

// Mean negative log-likelihood (nats) of ids[1...] given what comes before, from hidden states [T, hidden];
// logits exist for a few rows at a time only.
double mean_nll(const models::Decoder& model, const at::Tensor& hidden, const at::Tensor& ids);

// A row per method, all on the same windows. `gates` may be null where no method needs them.
// `done` is called after each method's each window.
std::vector<Row> compare(const models::Decoder& model, const models::Gates* gates,
                         const std::vector<Method>& methods, const Windows& windows,
                         const std::function<void()>& done = {});

nlohmann::json to_json(const Row& row);
nlohmann::json to_json(const std::vector<Row>& rows);
// The rows as a table for a terminal.
std::string to_table(const std::vector<Row>& rows);

}  // namespace seer::eval
