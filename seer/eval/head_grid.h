#pragma once
// Numbers of layers and heads as a grid of coloured cells: what pictures of all heads of a model have in common.

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "seer/report/image.h"

namespace seer::eval {

// Pixels: of the numbers left of a grid, and of a line of numbers below it.
inline constexpr int kTicksLeft = 40, kTickLine = 22;
inline constexpr report::Color kFrame = {0, 190, 220};

// A frame of `thick` pixels inside of the rectangle.
void frame(report::Image& image, int x, int y, int width, int height, int thick,
           report::Color color);
// A frame in the grid whose first cell is at (x, y).
void frame_cell(report::Image& image, int x, int y, int cell, int64_t layer, int64_t head);

// Layers downward, heads across, from (x, y) on. values: [layers, heads] f64 on the CPU; `text` says what stands in a cell that has
// room for it, none where the value is NaN. Below it, two lines: numbers and what they are.
void draw_grid(report::Image& image, int x, int y, int cell, const at::Tensor& values,
               const std::function<std::string(double)>& text,
               const std::function<report::Color(double)>& color);

}  // namespace seer::eval
