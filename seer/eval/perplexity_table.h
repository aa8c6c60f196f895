#pragma once
// Rows of perplexity beside each other: against dense attention, as a table, as JSON.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/eval/perplexity.h"
#include "seer/report/table.h"

namespace seer::eval {

// A row beside the dense one of its length and of the first model in `rows`; NaN where there is none to
// compare with. Documents are compared one by one, those that both rows have.
struct Beside {
  double ratio;  // of perplexities
  double error;  // standard error of the ratio; NaN for a single document
  // Of another model with its gates: its excess over that dense perplexity as a share of the excess that
  // the first model has with gates of the same kind, with or without lookup heads ("gate" leaves them
  // out), at the same setting. NaN where the latter has none, or was not measured.
  double excess;
};
Beside beside(const Row& row, const std::vector<Row>& rows);

// What is wrong with rows whose perplexity is not a finite number; empty: nothing.
std::string trouble(const std::vector<Row>& rows);

nlohmann::json to_json(const std::vector<Row>& rows);

// The rows as a table for a terminal, line by line as they come. What is compared with a row that comes
// later stays empty.
class RowLines {
 public:
  // `subjects`: more than one are named, with what they were trained with.
  RowLines(const std::vector<Method>& methods, const std::vector<int64_t>& lengths,
           const std::vector<Subject>& subjects = {});
  std::string head() const { return columns_.head(); }
  std::string line(const Row& row);

 private:
  bool has_names_;
  report::Columns columns_;
  std::vector<Row> rows_;  // so far
};

}  // namespace seer::eval
