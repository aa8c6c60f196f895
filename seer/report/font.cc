#include "seer/report/font.h"

#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_truetype.h>
#pragma GCC diagnostic pop

#include "seer/base/error.h"

// The file, byte by byte: C++20 has no #embed.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "seer_font: .incbin \"" SEER_FONT
    "\"\n"
    ".popsection\n");
extern "C" const unsigned char seer_font[];

namespace seer::report {
namespace {

const stbtt_fontinfo& font() {
  static const stbtt_fontinfo made = [] {
    stbtt_fontinfo info;
    SEER_CHECK(stbtt_InitFont(&info, seer_font, 0), "the font of pictures is none: build again");
    return info;
  }();
  return made;
}

float scale_of(int size) {
  return stbtt_ScaleForMappingEmToPixels(&font(), static_cast<float>(size));
}

}  // namespace

Glyph glyph_of(char32_t letter, int size, float shift) {
  const float scale = scale_of(size);
  const int index = stbtt_FindGlyphIndex(&font(), static_cast<int>(letter));
  int left, top, right, bottom;
  stbtt_GetGlyphBitmapBoxSubpixel(&font(), index, scale, scale, shift, 0, &left, &top, &right,
                                  &bottom);
  Glyph glyph{left, top, right - left, bottom - top, {}};
  glyph.coverage.resize(static_cast<size_t>(glyph.width) * glyph.height);
  stbtt_MakeGlyphBitmapSubpixel(&font(), glyph.coverage.data(), glyph.width, glyph.height,
                                glyph.width, scale, scale, shift, 0, index);
  return glyph;
}

float advance_of(char32_t letter, int size) {
  int advance = 0, bearing = 0;
  stbtt_GetCodepointHMetrics(&font(), static_cast<int>(letter), &advance, &bearing);
  return static_cast<float>(advance) * scale_of(size);
}

}  // namespace seer::report
