#pragma once
// Recall by layer and head as heat maps, one for each row of the table.

#include <string>
#include <vector>

#include "seer/eval/recall.h"
#include "seer/report/image.h"

namespace seer::eval {

// Methods side by side, settings below one another, one scale of colours for all.
// A frame marks the worst head; layers that are not measured are grey.
report::Image recall_picture(const std::vector<RecallRow>& rows, const std::string& title);

}  // namespace seer::eval
