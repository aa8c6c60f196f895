#pragma once
// Perplexity of a model under several attention methods on the same texts, with what each method kept
// and cost. Protocol of the published tables: documents cut to the length, BOS first, exp of the mean
// over documents of the mean negative log-likelihood.

#include <cstdint>
#include <string>
#include <vector>

#include "seer/eval/pass.h"
#include "seer/eval/windows.h"

namespace seer::eval {

// A model that is measured beside others.
struct Subject {
  std::string model;  // its name; empty: there is one only
  Setting trained;    // what its weights were trained with; no rule: dense attention, or not known
  bool lookups = false;  // its gates have lookup heads
};

struct Row {
  Subject subject;          // compare() leaves it empty
  std::string method;       // "dense", or of models::methods()
  Setting setting;          // asked for
  int64_t length = 0;       // tokens of each document, BOS included
  int64_t block = 0;        // tokens; 0: dense
  int64_t documents = 0;    // measured
  std::vector<double> nll;  // of each document, nats per token
  double perplexity = 0;    // NaN where it is of some document
  int64_t not_finite = 0;   // documents whose perplexity is not a finite number
  double density = 1;       // blocks computed over causal blocks, measured
  // Of each layer, of sparse methods; NaN where a sliding window hides keys and blocks are not chosen.
  std::vector<double> layer_density;
  double attention_ms = 0;  // median over documents: gate, selection and attention, all layers
  double score_ms = 0, select_ms = 0;  // of which
  double prefill_ms = 0;  // median over documents: the whole forward pass but the output head
};

// Mean negative log-likelihood (nats) of ids[1...] given what comes before, from hidden states [T, hidden];
// logits exist for a few rows at a time only.
double mean_nll(const models::Decoder& model, const at::Tensor& hidden, const at::Tensor& ids);

using Watch = WatchOf<Row>;

// A row per method, all on the same windows. `gates` may be null where no method needs them. Where it is
// stopped, rows are of the windows that all methods have seen, or, in the first window, of the methods
// that have. An error in a pass comes after watch.row has had the rows that were measured.
std::vector<Row> compare(const models::Decoder& model, const models::Gates* gates,
                         const std::vector<Method>& methods, const Windows& windows,
                         const Watch& watch = {});

}  // namespace seer::eval
