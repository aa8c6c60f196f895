#pragma once
// Letters of DejaVu Sans for labels in pictures. The program holds the font.

#include <cstdint>
#include <vector>

namespace seer::report {

struct Glyph {
  int left, top;  // of its first pixel, from the pen and (downwards) from the baseline
  int width, height;
  std::vector<uint8_t> coverage;  // [height, width]; 255: the whole pixel
};

// `size`: pixels of an em; `shift`: how far the pen stands behind a whole pixel, in [0, 1).
Glyph glyph_of(char32_t letter, int size, float shift);
// Pixels from one letter's pen to the next one's.
float advance_of(char32_t letter, int size);

}  // namespace seer::report
