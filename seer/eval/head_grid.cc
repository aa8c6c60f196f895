#include "seer/eval/head_grid.h"

#include <cmath>
#include <string>
#include <utility>

namespace seer::eval {
namespace {

using report::Color;
using report::Image;
using report::kFaint;

// As large as it fits in; nothing in small cells.
void write_cell(Image& image, int x, int y, int cell, const std::string& text, Color background) {
  const auto fits = [&](int size) { return cell >= Image::text_width(text, size) + 2; };
  const int size = cell >= 36 && fits(report::kLarge) ? report::kLarge : report::kSmall;
  if (!fits(size)) return;
  image.text(x + (cell - Image::text_width(text, size)) / 2,
             y + (cell - Image::text_height(size)) / 2, text, report::ink_on(background), size);
}

// Numbers along an axis, as many as have room.
template <class At>
void write_ticks(Image& image, int64_t count, int cell, const At& at) {
  int step = 1;
  while (step * cell < 30) step *= 2;
  for (int i = 0; i < count; i += step) {
    const auto [x, y] = at(i);
    image.text(x, y, std::to_string(i), kFaint);
  }
}

}  // namespace

void frame(Image& image, int x, int y, int width, int height, int thick, Color color) {
  image.fill(x, y, width, thick, color);
  image.fill(x, y + height - thick, width, thick, color);
  image.fill(x, y, thick, height, color);
  image.fill(x + width - thick, y, thick, height, color);
}

void frame_cell(Image& image, int x, int y, int cell, int64_t layer, int64_t head) {
  frame(image, x + static_cast<int>(head) * cell, y + static_cast<int>(layer) * cell, cell, cell,
        cell >= 16 ? 3 : 2, kFrame);
}

void draw_grid(Image& image, int x, int y, int cell, const at::Tensor& values,
               const std::function<std::string(double)>& text,
               const std::function<Color(double)>& color) {
  const auto value_of = values.accessor<double, 2>();
  const int64_t layers = values.size(0), heads = values.size(1);
  for (int layer = 0; layer < layers; ++layer) {
    for (int head = 0; head < heads; ++head) {
      const int left = x + head * cell, top = y + layer * cell;
      const double value = value_of[layer][head];
      const Color background = color(value);
      image.fill(left, top, cell, cell, background);
      if (!std::isnan(value)) write_cell(image, left, top, cell, text(value), background);
    }
  }
  write_ticks(image, layers, cell, [&](int layer) {
    const int width = Image::text_width(std::to_string(layer));
    return std::pair(x - width - 4, y + layer * cell + (cell - 14) / 2);
  });
  const int below = y + static_cast<int>(layers) * cell + 4;
  write_ticks(image, heads, cell, [&](int head) {
    const int width = Image::text_width(std::to_string(head));
    return std::pair(x + head * cell + (cell - width) / 2, below);
  });
  image.text(x, below + kTickLine, "down: layer, across: head", kFaint, report::kSmall);
}

}  // namespace seer::eval
