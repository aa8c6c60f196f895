#include "seer/report/table.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "seer/base/shown.h"

namespace seer::report {
namespace {

constexpr size_t kLongestCell = 400;

// Code points, for the width on a terminal.
size_t width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

bool is_numeric(const std::string& text) {
  return !text.empty() && (std::isdigit(static_cast<unsigned char>(text[0])) ||
                           ((text[0] == '-' || text[0] == 'x') && text.size() > 1 &&
                            std::isdigit(static_cast<unsigned char>(text[1]))));
}

}  // namespace

std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::string fixed_or_empty(double value, int digits, const char* before) {
  return std::isfinite(value) ? before + fixed(value, digits) : "";
}

std::string number(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  return buffer;
}

void Table::add(std::vector<std::string> row) {
  for (std::string& cell : row) cell = one_line(cell, kLongestCell);
  rows_.push_back(std::move(row));
}

Columns::Columns(std::vector<Column> columns) : columns_(std::move(columns)) {
  for (Column& column : columns_) column.width = std::max(column.width, width(column.title));
}

std::string Columns::head() const {
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  return line(titles);
}

std::string Columns::line(const std::vector<std::string>& cells) const {
  std::string line;
  for (size_t c = 0; c < cells.size(); ++c) {
    const size_t wide = width(cells[c]);
    const std::string pad(columns_[c].width > wide ? columns_[c].width - wide : 0, ' ');
    line += (c > 0 ? "  " : "") + (columns_[c].right ? pad + cells[c] : cells[c] + pad);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string Table::text() const {
  std::vector<Columns::Column> columns;
  for (size_t c = 0; c < rows_[0].size(); ++c) {
    Columns::Column column{rows_[0][c]};
    for (size_t r = 1; r < rows_.size(); ++r) {
      column.width = std::max(column.width, width(rows_[r][c]));
      column.right = column.right || is_numeric(rows_[r][c]);
    }
    columns.push_back(column);
  }
  const Columns lines(columns);
  std::string out;
  for (const auto& row : rows_) out += lines.line(row);
  return out;
}

}  // namespace seer::report
