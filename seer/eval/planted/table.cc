#include "seer/eval/planted/table.h"

#include <algorithm>
#include <cmath>

namespace seer::eval {
namespace {

std::string with_sign(double value) {
  return report::fixed_or_empty(value, 3, value < 0 ? "" : "+");
}

report::Columns columns_of(const std::vector<Method>& methods, const Planted& planted) {
  size_t method = 0, setting = 0, kind = 3;
  for (const Method& m : methods) {
    method = std::max(method, method_name(m).size());
    setting = std::max(setting, to_text(setting_of(m)).size());
  }
  for (const Label& label : planted.kinds) kind = std::max(kind, label.name.size());
  std::vector<report::Columns::Column> columns{
      {"length", 6, true}, {"method", method}, {"setting", setting}, {"density", 0, true}};
  if (planted.kinds.size() > 1) columns.push_back({"asked", kind});
  for (const char* name : {"top-1", "exact", "loss"}) {
    columns.insert(columns.end(), {{name, 5, true}, {"error", 5, true}});
  }
  columns.insert(columns.end(), {{"top-1 - dense", 0, true}, {"error", 5, true}});
  for (const Label& label : planted.points) columns.push_back({label.name, 5, true});
  return report::Columns(columns);
}

}  // namespace

PlantedLines::PlantedLines(const std::vector<Method>& methods, const Planted& planted)
    : planted_(planted), columns_(columns_of(methods, planted)) {}

std::string PlantedLines::line(const PlantedRow& row, int kind) const {
  const PlantedRow* dense = row.method == "dense" ? nullptr : dense_row(rows_);
  const Score all = score(row, dense, kind);
  std::vector<std::string> cells{std::to_string(row.length), row.method, to_text(row.setting),
                                 report::fixed(row.density, 3)};
  if (planted_.kinds.size() > 1) {
    cells.push_back(kind == kAll ? "all" : planted_.kinds[static_cast<size_t>(kind)].name);
  }
  for (const Mean& mean : {all.top1, all.exact, all.loss}) {
    cells.push_back(report::fixed_or_empty(mean.value, 3));
    cells.push_back(report::fixed_or_empty(mean.error, 3));
  }
  cells.push_back(with_sign(all.top1_gain.value));
  cells.push_back(report::fixed_or_empty(all.top1_gain.error, 3));
  for (size_t point = 0; point < planted_.points.size(); ++point) {
    const Score at = score(row, nullptr, kind, static_cast<int>(point));
    cells.push_back(report::fixed_or_empty(at.top1.value, 3));
  }
  return columns_.line(cells);
}

std::string PlantedLines::lines(const PlantedRow& row) {
  rows_.push_back(row);
  std::string text = line(row, kAll);
  if (planted_.kinds.size() == 1) return text;
  for (size_t kind = 0; kind < planted_.kinds.size(); ++kind) {
    text += line(row, static_cast<int>(kind));
  }
  return text;
}

}  // namespace seer::eval
