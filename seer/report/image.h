#pragma once
// A small RGB image: rectangles, labels, PNG files.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace seer::report {

using Color = std::array<uint8_t, 3>;
inline constexpr int kLarge = 18, kSmall = 11;  // sizes of labels
inline constexpr Color kText = {20, 20, 30}, kFaint = {110, 110, 120}, kWhite = {255, 255, 255};

class Image {
 public:
  Image(int width, int height, Color background);
  int width() const { return width_; }
  int height() const { return height_; }
  Color at(int x, int y) const;
  // Parts outside of the image are left out.
  void fill(int x, int y, int width, int height, Color color);
  // A straight line of squares `thick` pixels wide, both ends included.
  void line(int x0, int y0, int x1, int y1, int thick, Color color);
  // In UTF-8; y is where capitals end above. `size`: pixels of an em.
  void text(int x, int y, std::string_view text, Color color, int size = kLarge);
  static int text_width(std::string_view text, int size = kLarge);
  // Of capitals and digits.
  static constexpr int text_height(int size = kLarge) { return size * 7 / 9; }
  void write_png(const std::filesystem::path& path) const;

 private:
  // Lays the colour over a pixel; `coverage` of 255 parts.
  void blend(int x, int y, Color color, int coverage);

  int width_, height_;
  std::vector<uint8_t> rgb_;
};

// A perceptual ramp from dark to light for value in [0, 1]; NaN is grey.
Color heat(double value);
// Of letters on that colour: light on dark, dark on light.
Color ink_on(Color background);

}  // namespace seer::report
