#include "seer/report/image.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/utf8.h"
#include "seer/report/font.h"

namespace seer::report {
namespace {

// libpng reports errors by a call that must not return.
[[noreturn]] void on_png_error(png_structp, png_const_charp what) {
  fail("cannot make a PNG: ", what);
}

void on_png_write(png_structp png, png_bytep bytes, size_t size) {
  (*static_cast<const Sink*>(png_get_io_ptr(png)))(bytes, size);
}

template <class Take>
void each_letter(std::string_view text, Take take) {
  const std::string valid = replace_invalid_utf8(text);
  for (size_t at = 0; at < valid.size();) take(next_code_point(valid, at));
}

}  // namespace

Image::Image(int width, int height, Color background)
    : width_(width), height_(height), rgb_(static_cast<size_t>(width) * height * 3) {
  fill(0, 0, width, height, background);
}

Color Image::at(int x, int y) const {
  const uint8_t* p = &rgb_[(static_cast<size_t>(y) * width_ + x) * 3];
  return {p[0], p[1], p[2]};
}

void Image::fill(int x, int y, int width, int height, Color color) {
  const int right = std::min(x + width, width_), bottom = std::min(y + height, height_);
  for (int row = std::max(y, 0); row < bottom; ++row) {
    for (int column = std::max(x, 0); column < right; ++column) {
      std::copy(color.begin(), color.end(),
                &rgb_[(static_cast<size_t>(row) * width_ + column) * 3]);
    }
  }
}

void Image::line(int x0, int y0, int x1, int y1, int thick, Color color) {
  const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
  for (int i = 0; i <= steps; ++i) {
    const double share = static_cast<double>(i) / steps;
    fill(x0 + static_cast<int>(std::lround(share * (x1 - x0))) - thick / 2,
         y0 + static_cast<int>(std::lround(share * (y1 - y0))) - thick / 2, thick, thick, color);
  }
}

void Image::text(int x, int y, std::string_view text, Color color, int size) {
  const int baseline = y + text_height(size);
  auto pen = static_cast<float>(x);
  each_letter(text, [&](char32_t letter) {
    const auto column = static_cast<int>(std::floor(pen));
    const Glyph glyph = glyph_of(letter, size, pen - static_cast<float>(column));
    for (int row = 0; row < glyph.height; ++row) {
      for (int i = 0; i < glyph.width; ++i) {
        blend(column + glyph.left + i, baseline + glyph.top + row, color,
              glyph.coverage[static_cast<size_t>(row) * glyph.width + i]);
      }
    }
    pen += advance_of(letter, size);
  });
}

int Image::text_width(std::string_view text, int size) {
  float width = 0;
  each_letter(text, [&](char32_t letter) { width += advance_of(letter, size); });
  return static_cast<int>(std::ceil(width));
}

void Image::blend(int x, int y, Color color, int coverage) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
  uint8_t* const p = &rgb_[(static_cast<size_t>(y) * width_ + x) * 3];
  for (int c = 0; c < 3; ++c) {
    p[c] = static_cast<uint8_t>((p[c] * (255 - coverage) + color[c] * coverage + 127) / 255);
  }
}

void Image::write_png(const std::filesystem::path& path) const {
  write_file_atomic(path, [&](const Sink& sink) {
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, on_png_error, nullptr);
    if (png == nullptr) fail("cannot make a PNG: out of memory");
    png_infop info = png_create_info_struct(png);
    try {
      png_set_write_fn(png, const_cast<Sink*>(&sink), on_png_write, [](png_structp) {});
      png_set_IHDR(png, info, width_, height_, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                   PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
      png_write_info(png, info);
      for (int row = 0; row < height_; ++row) {
        png_write_row(png, &rgb_[static_cast<size_t>(row) * width_ * 3]);
      }
      png_write_end(png, info);
    } catch (...) {
      png_destroy_write_struct(&png, &info);
      throw;
    }
    png_destroy_write_struct(&png, &info);
  });
}

Color heat(double value) {
  if (std::isnan(value)) return {128, 128, 128};
  // Anchors of a ramp whose lightness grows evenly: navy, violet, orange, cream.
  constexpr double kAnchors[5][3] = {
      {10, 8, 40}, {85, 20, 110}, {185, 55, 85}, {245, 140, 40}, {252, 250, 200}};
  const double at = std::clamp(value, 0.0, 1.0) * 4;
  const int i = std::min(static_cast<int>(at), 3);
  Color color;
  for (int c = 0; c < 3; ++c) {
    color[c] = static_cast<uint8_t>(
        std::lround(kAnchors[i][c] + (at - i) * (kAnchors[i + 1][c] - kAnchors[i][c])));
  }
  return color;
}

Color ink_on(Color background) {
  const int lightness = background[0] * 3 + background[1] * 6 + background[2];
  return lightness > 1300 ? kText : kWhite;
}

}  // namespace seer::report
