#pragma once
// What a table of methods does not say by itself: settings that short texts cannot meet, rows that
// cannot be compared, gates that are worse than no gates.

#include <string>
#include <vector>

#include "seer/eval/perplexity.h"
#include "seer/eval/planted/score.h"
#include "seer/eval/recall.h"

namespace seer::eval {

// One line each, to be shown below the table.
std::vector<std::string> remarks(const std::vector<Row>& rows);
std::vector<std::string> remarks(const std::vector<RecallRow>& rows);
std::vector<std::string> remarks(const std::vector<Answered>& answered);

}  // namespace seer::eval
