#pragma once
// Rows of planted questions as a table for a terminal.

#include <string>
#include <vector>

#include "seer/eval/planted/score.h"
#include "seer/report/table.h"

namespace seer::eval {

// Of one length: a line for each row as it comes, and where there are several kinds of questions one for
// each kind below it. The last columns are top-1 at each distance or depth. Differences from dense
// attention need that row first.
class PlantedLines {
 public:
  PlantedLines(const std::vector<Method>& methods, const Planted& planted);
  std::string head() const { return columns_.head(); }
  std::string lines(const PlantedRow& row);

 private:
  std::string line(const PlantedRow& row, int kind) const;
  const Planted& planted_;
  report::Columns columns_;
  std::vector<PlantedRow> rows_;  // so far
};

}  // namespace seer::eval
