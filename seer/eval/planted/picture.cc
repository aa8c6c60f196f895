#include "seer/eval/planted/picture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "seer/base/error.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

using report::Color;
using report::Image;
using report::kFaint;
using report::kText;
using report::kWhite;

constexpr Color kGrid = {222, 222, 228}, kDense = {60, 60, 70};
// Of methods in the order of the rows; they tell apart without their hue, too.
constexpr Color kLines[] = {{213, 94, 0},    {0, 114, 178}, {0, 158, 115},
                            {204, 121, 167}, {230, 159, 0}, {86, 180, 233}};
// Pixels.
constexpr int kSide = 24, kBetween = 40, kLineHeight = 24, kAxisWidth = 52;

// Names of methods and texts of settings, in the order of the rows, each once.
std::vector<std::string> methods_of(const std::vector<Answered>& all) {
  std::vector<std::string> names;
  for (const Answered& of : all) {
    for (const PlantedRow& row : of.rows) {
      if (std::find(names.begin(), names.end(), row.method) == names.end()) {
        names.push_back(row.method);
      }
    }
  }
  return names;
}
std::vector<std::string> settings_of(const std::vector<Answered>& all) {
  std::vector<std::string> texts;
  for (const Answered& of : all) {
    for (const PlantedRow& row : of.rows) {
      const std::string text = to_text(row.setting);
      if (!text.empty() && std::find(texts.begin(), texts.end(), text) == texts.end()) {
        texts.push_back(text);
      }
    }
  }
  if (texts.empty()) texts.emplace_back();  // dense alone
  return texts;
}

const PlantedRow* row_of(const Answered& of, const std::string& method,
                         const std::string& setting) {
  for (const PlantedRow& row : of.rows) {
    if (row.method == method && (method == "dense" || to_text(row.setting) == setting)) return &row;
  }
  return nullptr;
}

Color color_of(const std::vector<std::string>& methods, const std::string& method) {
  if (method == "dense") return kDense;
  const auto at = std::find(methods.begin(), methods.end(), method) - methods.begin();
  return kLines[static_cast<size_t>(at) % std::size(kLines)];
}

// Where the panels of lines are.
struct Panels {
  int width, height = 220, pitch_x, pitch_y;
  explicit Panels(size_t points)
      : width(std::clamp(static_cast<int>(points) * 100, 300, 700)),
        pitch_x(kAxisWidth + width + kBetween),
        pitch_y(2 * kLineHeight + height + kLineHeight + kBetween) {}
};

void draw_panel(Image& image, int x, int y, const Panels& panels, const Answered& of, int kind,
                const std::string& setting, const std::vector<std::string>& methods) {
  const std::string& asked = of.planted.kinds[static_cast<size_t>(kind)].name;
  image.text(x + kAxisWidth, y, message(of.planted.length, " tokens, ", asked), kText);
  image.text(x + kAxisWidth, y + kLineHeight, setting, kFaint);
  x += kAxisWidth;
  y += 2 * kLineHeight + 6;
  const auto height_of = [&](double value) {
    return y + static_cast<int>(std::lround((1 - value) * panels.height));
  };
  for (int tick = 0; tick <= 4; ++tick) {
    const std::string text = report::fixed(0.25 * tick, 2);
    image.fill(x, height_of(0.25 * tick), panels.width, 1, kGrid);
    image.text(x - Image::text_width(text) - 6, height_of(0.25 * tick) - 8, text, kFaint);
  }
  const auto points = static_cast<int>(of.planted.points.size());
  const auto middle_of = [&](int point) {
    return x + panels.width * (2 * point + 1) / (2 * points);
  };
  for (int point = 0; point < points; ++point) {
    const std::string& name = of.planted.points[static_cast<size_t>(point)].name;
    image.text(middle_of(point) - Image::text_width(name) / 2, y + panels.height + 10, name,
               kFaint);
  }
  for (size_t m = 0; m < methods.size(); ++m) {
    const PlantedRow* row = row_of(of, methods[m], setting);
    if (row == nullptr) continue;
    const Color color = color_of(methods, methods[m]);
    int last_x = -1, last_y = 0;
    for (int point = 0; point < points; ++point) {
      const Mean top1 = score(*row, nullptr, kind, point).top1;
      if (!std::isfinite(top1.value)) continue;
      // Beside each other, so that their errors can be told apart.
      const int at =
          middle_of(point) + 6 * (2 * static_cast<int>(m) + 1 - static_cast<int>(methods.size()));
      const int height = height_of(top1.value);
      if (last_x >= 0) image.line(last_x, last_y, at, height, 3, color);
      if (std::isfinite(top1.error)) {
        const int top = height_of(std::min(1.0, top1.value + top1.error)),
                  bottom = height_of(std::max(0.0, top1.value - top1.error));
        image.fill(at - 1, top, 2, bottom - top + 1, color);
      }
      image.fill(at - 4, height - 4, 9, 9, color);
      last_x = at;
      last_y = height;
    }
  }
}

void draw_methods(Image& image, int y, const std::vector<std::string>& methods) {
  int x = kSide;
  for (const std::string& method : methods) {
    const Color color = color_of(methods, method);
    image.fill(x, y + 6, 28, 3, color);
    image.fill(x + 10, y + 3, 9, 9, color);
    image.text(x + 36, y, method, kText);
    x += 36 + Image::text_width(method) + kBetween / 2;
  }
}

int methods_width(const std::vector<std::string>& methods) {
  int width = 0;
  for (const std::string& method : methods) {
    width += 36 + Image::text_width(method) + kBetween / 2;
  }
  return width;
}

constexpr const char* kBars =
    "Across: tokens from the answer back to where it is told; bars: "
    "standard errors";

// A cell of a heat map with its per cent in it.
constexpr int kCellWidth = 64, kCellHeight = 28, kLegendBar = 300;
void draw_cell(Image& image, int x, int y, double value) {
  const Color color = report::heat(value);
  image.fill(x, y, kCellWidth, kCellHeight, color);
  if (std::isnan(value)) return;
  const std::string text = report::fixed(100 * value, 0);
  image.text(x + (kCellWidth - Image::text_width(text)) / 2, y + (kCellHeight - 14) / 2, text,
             report::ink_on(color));
}

void draw_map(Image& image, int x, int y, const std::vector<Answered>& all,
              const std::string& method, const std::string& setting) {
  image.text(x, y, method == "dense" ? method : method + ", " + setting, kText);
  y += kLineHeight + 2;
  const auto depths = static_cast<int>(all[0].planted.points.size());
  const int left = x + kAxisWidth + 8;
  for (int depth = 0; depth < depths; ++depth) {
    const std::string& name = all[0].planted.points[static_cast<size_t>(depth)].name;
    image.text(left - Image::text_width(name) - 8, y + depth * kCellHeight + 7, name, kFaint);
  }
  for (size_t l = 0; l < all.size(); ++l) {
    const int cell_x = left + static_cast<int>(l) * kCellWidth;
    const PlantedRow* row = row_of(all[l], method, setting);
    for (int depth = 0; depth < depths; ++depth) {
      const double value = row == nullptr ? std::numeric_limits<double>::quiet_NaN()
                                          : score(*row, nullptr, kAll, depth).top1.value;
      draw_cell(image, cell_x, y + depth * kCellHeight, value);
    }
    const int64_t length = all[l].planted.length;
    const std::string name =
        length % 1024 == 0 ? std::to_string(length / 1024) + "k" : std::to_string(length);
    image.text(cell_x + (kCellWidth - Image::text_width(name)) / 2, y + depths * kCellHeight + 6,
               name, kFaint);
  }
}

}  // namespace

report::Image distance_picture(const std::vector<Answered>& all, const std::string& title) {
  const auto methods = methods_of(all), settings = settings_of(all);
  size_t points = 0, lines = 0;
  for (const Answered& of : all) {
    points = std::max(points, of.planted.points.size());
    lines += of.rows.empty() ? 0 : of.planted.kinds.size();
  }
  SEER_CHECK(lines > 0, "no rows to draw");
  const Panels panels(points);
  const int head = kSide + 3 * kLineHeight + 24,
            widest = std::max({Image::text_width(title), Image::text_width(kBars),
                               methods_width(methods),
                               static_cast<int>(settings.size()) * panels.pitch_x - kBetween});
  Image image(2 * kSide + widest, head + static_cast<int>(lines) * panels.pitch_y, kWhite);
  image.text(kSide, kSide, title, kText);
  draw_methods(image, kSide + kLineHeight + 6, methods);
  image.text(kSide, kSide + 2 * kLineHeight + 12, kBars, kFaint);
  int y = head;
  for (const Answered& of : all) {
    if (of.rows.empty()) continue;
    for (size_t kind = 0; kind < of.planted.kinds.size(); ++kind, y += panels.pitch_y) {
      for (size_t s = 0; s < settings.size(); ++s) {
        draw_panel(image, kSide + static_cast<int>(s) * panels.pitch_x, y, panels, of,
                   static_cast<int>(kind), settings[s], methods);
      }
    }
  }
  return image;
}

report::Image needle_picture(const std::vector<Answered>& all, const std::string& title) {
  SEER_CHECK(!all.empty() && !all[0].rows.empty(), "no rows to draw");
  const auto methods = methods_of(all), settings = settings_of(all);
  constexpr const char* kAxes =
      "down: depth of the fact in the text; across: tokens; grey: not "
      "measured";
  int pitch_x = kAxisWidth + 8 + static_cast<int>(all.size()) * kCellWidth;
  for (const std::string& method : methods) {
    for (const std::string& setting : settings) {
      pitch_x = std::max(pitch_x, Image::text_width(method + ", " + setting));
    }
  }
  pitch_x += kBetween;
  const int pitch_y = kLineHeight + 2 +
                      static_cast<int>(all[0].planted.points.size()) * kCellHeight + kLineHeight +
                      kBetween;
  const int head = kSide + kLineHeight + 12 + 18 + kLineHeight + kLineHeight + 20,
            widest = std::max({Image::text_width(title), Image::text_width(kAxes),
                               static_cast<int>(methods.size()) * pitch_x - kBetween});
  Image image(2 * kSide + widest, head + static_cast<int>(settings.size()) * pitch_y, kWhite);
  image.text(kSide, kSide, title, kText);
  int y = kSide + kLineHeight + 12;
  for (int i = 0; i < kLegendBar; ++i) {
    image.fill(kSide + i, y, 1, 18, report::heat((i + 0.5) / kLegendBar));
  }
  for (int tick = 0; tick <= 2; ++tick) {
    const std::string text = std::to_string(50 * tick) + "%";
    image.text(kSide + (kLegendBar - Image::text_width(text)) * tick / 2, y + 22, text, kFaint);
  }
  image.text(kSide, y + 22 + kLineHeight, kAxes, kFaint);
  y = head;
  for (const std::string& setting : settings) {
    for (size_t m = 0; m < methods.size(); ++m) {
      draw_map(image, kSide + static_cast<int>(m) * pitch_x, y, all, methods[m], setting);
    }
    y += pitch_y;
  }
  return image;
}

}  // namespace seer::eval
