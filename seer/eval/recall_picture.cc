#include "seer/eval/recall_picture.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "seer/base/error.h"
#include "seer/eval/head_grid.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

using report::Color;
using report::Image;
using report::kFaint;
using report::kText;
using report::kWhite;

// Pixels.
constexpr int kBorder = 24, kSpace = 32, kTextLine = 24;
constexpr int kBar = 300, kBarHeight = 18;

std::string in_percent(double share, int digits) {
  return report::fixed(100 * share, digits) + "%";
}

// "seer 93.1%"; below it, fainter, "density 0.091, gates NAME".
std::string label_of(const RecallRow& row) {
  return row.method + " " + in_percent(mean_recall(row), 1);
}
std::string details_of(const RecallRow& row) {
  return "density " + report::fixed(row.density, 3) + (row.gates.empty() ? "" : ", " + row.gates);
}

// Rows of one setting, side by side.
std::vector<std::vector<const RecallRow*>> lines_of(const std::vector<RecallRow>& rows) {
  std::vector<std::vector<const RecallRow*>> lines;
  for (const RecallRow& row : rows) {
    const auto line = std::find_if(lines.begin(), lines.end(), [&](const auto& other) {
      return to_text(other[0]->setting) == to_text(row.setting);
    });
    if (line == lines.end()) {
      lines.push_back({&row});
    } else {
      line->push_back(&row);
    }
  }
  return lines;
}

// Where things are, the same for every heat map.
struct Layout {
  int layers, heads, cell;
  double lowest;  // recall at the dark end of the colours
  int pitch;      // pixels from a map to the next one on its right
  int map_width() const { return heads * cell; }
  int map_height() const { return layers * cell; }
  int line_height() const { return 3 * kTextLine + 6 + map_height() + 2 * kTickLine + kSpace; }
  Color color(double recall) const { return report::heat((recall - lowest) / (1 - lowest)); }
};

Layout layout_of(const std::vector<RecallRow>& rows) {
  Layout layout{};
  layout.layers = static_cast<int>(rows[0].recall.size(0));
  layout.heads = static_cast<int>(rows[0].recall.size(1));
  layout.cell = std::clamp(320 / std::max(layout.layers, layout.heads), 6, 40);
  double lowest = 1;
  int widest = kTicksLeft + layout.map_width();
  for (const RecallRow& row : rows) {
    lowest = std::min(lowest, worst_head(row).recall);
    widest = std::max({widest, kTicksLeft + Image::text_width(label_of(row)),
                       kTicksLeft + Image::text_width(details_of(row))});
  }
  // Whole tens of percent, and never no range at all.
  layout.lowest = std::clamp(std::floor(lowest * 10) / 10, 0.0, 0.9);
  layout.pitch = widest + kSpace;
  return layout;
}

void draw_map(Image& image, int x, int y, const Layout& layout, const RecallRow& row) {
  image.text(x + kTicksLeft, y, label_of(row), kText);
  y += kTextLine;
  x += kTicksLeft;
  image.text(x, y, details_of(row), kFaint);
  y += kTextLine;
  draw_grid(
      image, x, y, layout.cell, row.recall,
      [](double recall) { return report::fixed(100 * recall, 0); },
      [&](double recall) { return layout.color(recall); });
  const HeadRecall worst = worst_head(row);
  frame_cell(image, x, y, layout.cell, worst.layer, worst.head);
}

constexpr const char* kLegend = "Share of attention in the chosen blocks";
constexpr const char* kFrameLegend = "Worst head";
constexpr const char* kGreyLegend = "Not measured: sliding window";

// The scale of colours, and what frame and grey mean.
void draw_legend(Image& image, int y, const Layout& layout, bool has_grey) {
  image.text(kBorder, y, kLegend, kText);
  y += kTextLine;
  for (int i = 0; i < kBar; ++i) {
    image.fill(kBorder + i, y, 1, kBarHeight, report::heat((i + 0.5) / kBar));
  }
  for (int tick = 0; tick <= 2; ++tick) {
    const std::string text = in_percent(layout.lowest + (1 - layout.lowest) * tick / 2, 0);
    const int x = kBorder + (kBar - Image::text_width(text)) * tick / 2;
    image.text(x, y + kBarHeight + 4, text, kFaint);
  }
  int x = kBorder + kBar + kSpace;
  frame(image, x, y, kBarHeight, kBarHeight, 3, kFrame);
  x += kBarHeight + 8;
  image.text(x, y + 1, kFrameLegend, kText);
  x += Image::text_width(kFrameLegend) + kSpace;
  if (!has_grey) return;
  image.fill(x, y, kBarHeight, kBarHeight, report::heat(std::numeric_limits<double>::quiet_NaN()));
  image.text(x + kBarHeight + 8, y + 1, kGreyLegend, kText);
}

int legend_width(bool has_grey) {
  const int marks = kBar + kSpace + kBarHeight + 8 + Image::text_width(kFrameLegend);
  const int grey = has_grey ? kSpace + kBarHeight + 8 + Image::text_width(kGreyLegend) : 0;
  return std::max(Image::text_width(kLegend), marks + grey);
}

}  // namespace

report::Image recall_picture(const std::vector<RecallRow>& rows, const std::string& title) {
  SEER_CHECK(!rows.empty(), "no rows to draw");
  const Layout layout = layout_of(rows);
  const auto lines = lines_of(rows);
  const bool has_grey = rows[0].recall.isnan().any().item<bool>();
  size_t most = 0;
  int widest = std::max(Image::text_width(title), legend_width(has_grey));
  for (const auto& line : lines) {
    most = std::max(most, line.size());
  }
  widest = std::max(widest, static_cast<int>(most) * layout.pitch - kSpace);
  const int head = kBorder + kTextLine + 12 + 2 * kTextLine + kTickLine + 24;
  Image image(2 * kBorder + widest, head + static_cast<int>(lines.size()) * layout.line_height(),
              kWhite);
  image.text(kBorder, kBorder, title, kText);
  draw_legend(image, kBorder + kTextLine + 12, layout, has_grey);
  int y = head;
  for (const auto& line : lines) {
    image.text(kBorder, y, to_text(line[0]->setting), kText);
    for (size_t i = 0; i < line.size(); ++i) {
      draw_map(image, kBorder + static_cast<int>(i) * layout.pitch, y + kTextLine + 6, layout,
               *line[i]);
    }
    y += layout.line_height();
  }
  return image;
}

}  // namespace seer::eval
