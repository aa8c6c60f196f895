#include "seer/eval/remarks.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

// A row of either table. Of `cost` less is better.
struct Measured {
  std::string method, gates, setting, model;
  Setting asked;
  int64_t length, block;
  double density, cost;
  std::string measure, value;  // "perplexity", and what the table shows
};

// Rows of one length and setting.
using Group = std::vector<Measured>;

std::vector<Group> groups_of(const std::vector<Measured>& rows) {
  std::vector<Group> groups;
  for (const Measured& row : rows) {
    if (row.asked.rule.empty()) continue;  // dense
    const auto same = [&](const Group& g) {
      return g[0].length == row.length && g[0].block == row.block && g[0].setting == row.setting;
    };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) {
      groups.push_back({row});
    } else {
      found->push_back(row);
    }
  }
  return groups;
}

std::string name_of(const Measured& row) {
  return row.model + (row.model.empty() ? "" : ", ") + row.method;
}

std::string blocks_of(const Measured& row) {
  return message(row.length, " tokens are ",
                 counted((row.length + row.block - 1) / row.block, "block"), " of ", row.block);
}

bool keeps_best_of_row(const Measured& row) {
  return kernels::select_rule(row.asked.rule).best_of_row;
}

// Sparsities that a few blocks a row cannot give.
void add_unmet(const std::vector<Group>& groups, std::vector<std::string>& lines) {
  for (const Group& group : groups) {
    const Measured& row = group[0];
    if (!keeps_best_of_row(row) || !kernels::select_rule(row.asked.rule).takes_share()) continue;
    double most = 0;
    for (const Measured& other : group) most = std::max(most, other.density);
    if (most <= 1.2 * row.asked.strength) continue;
    lines.push_back(message(blocks_of(row), ": ", row.setting, " cannot be met, density is ",
                            report::fixed(most, 3), " instead of ",
                            report::number(row.asked.strength, 3),
                            " (each row keeps its own block and one more); choose longer texts or "
                            "smaller blocks"));
  }
}

// Different settings of a rule with the same blocks.
void add_same_choice(const std::vector<Group>& groups, std::vector<std::string>& lines) {
  std::set<size_t> told;
  for (size_t a = 0; a < groups.size(); ++a) {
    const Measured& one = groups[a][0];
    if (told.contains(a) || !keeps_best_of_row(one)) continue;
    std::vector<std::string> settings{one.setting};
    for (size_t b = a + 1; b < groups.size(); ++b) {
      const Measured& other = groups[b][0];
      const bool alike = one.length == other.length && one.block == other.block &&
                         other.asked.rule == one.asked.rule && one.method == other.method &&
                         one.model == other.model && one.density == other.density;
      if (!alike) continue;
      settings.push_back(other.setting);
      told.insert(b);
    }
    if (settings.size() == 1) continue;
    std::string list = settings[0];
    for (size_t i = 1; i < settings.size(); ++i) {
      list += (i + 1 < settings.size() ? ", " : " and ") + settings[i];
    }
    lines.push_back(blocks_of(one) + ": " + list + " are the same choice of blocks");
  }
}

// Rows beside each other that computed more and less.
void add_unequal(const std::vector<Group>& groups, std::vector<std::string>& lines) {
  for (const Group& group : groups) {
    const auto [least, most] = std::minmax_element(
        group.begin(), group.end(),
        [](const Measured& a, const Measured& b) { return a.density < b.density; });
    if (most->density - least->density <= 0.01 * most->density) continue;
    lines.push_back(message(least->length, " tokens, ", least->setting, ": densities differ, from ",
                            report::fixed(least->density, 3), " (", name_of(*least), ") to ",
                            report::fixed(most->density, 3), " (", name_of(*most),
                            "): the scores decide how many blocks this rule keeps"));
  }
}

// Gates that are worse than a choice that needs none.
void add_worse(const std::vector<Group>& groups, std::vector<std::string>& lines) {
  std::set<std::string> settings;
  std::string example;
  for (const Group& group : groups) {
    const auto baseline = std::find_if(
        group.begin(), group.end(), [](const Measured& row) { return row.method == "streaming"; });
    if (baseline == group.end()) continue;
    for (const Measured& row : group) {
      const double margin = 1e-3 * std::abs(baseline->cost);
      if (row.method != "seer" || row.model != baseline->model ||
          !(row.cost > baseline->cost + margin))
        continue;
      settings.insert(row.setting);
      if (example.empty()) {
        example =
            message(row.gates.empty() ? "" : row.gates + ", ", row.length, " tokens, ", row.setting,
                    ": ", row.measure, " ", row.value, " against ", baseline->value);
      }
    }
  }
  if (settings.empty()) return;
  lines.push_back(
      "seer is worse than streaming, which needs no gates (" + example +
      (settings.size() > 1 ? ", and elsewhere" : "") +
      "): the gates have learnt too little, or from texts of another length; train them with "
      "more --steps, more text and this --length");
}

// `precise`: the measure tells methods apart that are a thousandth apart.
std::vector<std::string> remarks_on(const std::vector<Measured>& rows, bool precise = true) {
  const std::vector<Group> groups = groups_of(rows);
  std::vector<std::string> lines;
  add_unmet(groups, lines);
  add_same_choice(groups, lines);
  add_unequal(groups, lines);
  if (precise) add_worse(groups, lines);
  return lines;
}

}  // namespace

std::vector<std::string> remarks(const std::vector<Row>& rows) {
  std::vector<Measured> all;
  for (const Row& row : rows) {
    all.push_back({row.method, "", to_text(row.setting), row.subject.model, row.setting, row.length,
                   row.block, row.density, row.perplexity, "perplexity",
                   report::fixed(row.perplexity, 3)});
  }
  return remarks_on(all);
}

std::vector<std::string> remarks(const std::vector<RecallRow>& rows) {
  std::vector<Measured> all;
  for (const RecallRow& row : rows) {
    const double recall = mean_recall(row);
    all.push_back({row.method, row.gates, to_text(row.setting), "", row.setting, row.length,
                   row.block, row.density, -recall, "recall",
                   report::fixed(100 * recall, 1) + "%"});
  }
  return remarks_on(all);
}

std::vector<std::string> remarks(const std::vector<Answered>& answered) {
  std::vector<Measured> all;
  for (const Answered& of : answered) {
    for (const PlantedRow& row : of.rows) {
      const double top1 = score(row, nullptr).top1.value;
      all.push_back({row.method, "", to_text(row.setting), "", row.setting, row.length, row.block,
                     row.density, -top1, "top-1", report::fixed(top1, 3)});
    }
  }
  return remarks_on(all, /*precise=*/false);
}

}  // namespace seer::eval
