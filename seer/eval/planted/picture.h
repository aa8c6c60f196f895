#pragma once
// Answers to planted questions as pictures.

#include <string>
#include <vector>

#include "seer/eval/planted/score.h"
#include "seer/report/image.h"

namespace seer::eval {

// Top-1 by distance with its standard error: a panel for each length, kind of question and setting, a line
// for each method, dense attention in each panel.
report::Image distance_picture(const std::vector<Answered>& all, const std::string& title);

// Top-1 by depth and length: a heat map for each method and setting.
report::Image needle_picture(const std::vector<Answered>& all, const std::string& title);

}  // namespace seer::eval
