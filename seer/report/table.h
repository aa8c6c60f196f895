#pragma once
// Tables for a terminal and for Markdown.

#include <string>
#include <vector>

namespace seer::report {

std::string fixed(double value, int digits);   // 12.345
std::string number(double value, int digits);  // shortest with at most `digits` significant digits

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  // Cells are shown on one line, without control characters.
  void add(std::vector<std::string> row);
  // Columns padded; numbers to the right. Ends with a newline.
  std::string text() const;
  std::string markdown() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace seer::report
