#pragma once
// Tables for a terminal.

#include <cstddef>
#include <string>
#include <vector>

namespace seer::report {

std::string fixed(double value, int digits);  // 12.345
// With `before` in front of it; nothing where it is not finite.
std::string fixed_or_empty(double value, int digits, const char* before = "");
std::string number(double value, int digits);  // shortest with at most `digits` significant digits

// Lines of columns whose widths are known beforehand, for rows that are shown as they come. Cells that
// are wider shift what follows them.
class Columns {
 public:
  struct Column {
    std::string title;
    size_t width = 0;    // at least; never less than the title's
    bool right = false;  // numbers
  };
  explicit Columns(std::vector<Column> columns);
  std::string head() const;
  // Ends with a newline, as head() does.
  std::string line(const std::vector<std::string>& cells) const;

 private:
  std::vector<Column> columns_;
};

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  // Cells are shown on one line, without control characters.
  void add(std::vector<std::string> row);
  // Columns padded; numbers to the right. Ends with a newline.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace seer::report
