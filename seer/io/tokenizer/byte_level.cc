#include "seer/io/tokenizer/byte_level.h"

#include "seer/base/utf8.h"

namespace seer::io {

namespace {

constexpr char32_t kFirstFree = 0x100;

constexpr bool is_itself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<std::string, 256> characters;
  std::array<unsigned char, 256> moved{};  // bytes of kFirstFree and on
  size_t num_moved = 0;

  Tables() {
    for (unsigned byte = 0; byte < 256; ++byte) {
      char32_t c = byte;
      if (!is_itself(byte)) {
        c = kFirstFree + static_cast<char32_t>(num_moved);
        moved[num_moved++] = static_cast<unsigned char>(byte);
      }
      append_utf8(characters[byte], c);
    }
  }
};

const Tables& tables() {
  static const Tables made;
  return made;
}

}  // namespace

const std::array<std::string, 256>& byte_characters() {
  return tables().characters;
}

std::optional<unsigned char> byte_of_character(char32_t c) {
  if (c < 256) {
    return is_itself(c) ? std::optional<unsigned char>(static_cast<unsigned char>(c))
                        : std::nullopt;
  }
  if (c - kFirstFree < tables().num_moved) return tables().moved[c - kFirstFree];
  return std::nullopt;
}

std::string bytes_to_characters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) out += byte_characters()[static_cast<unsigned char>(byte)];
  return out;
}

std::string characters_to_bytes(std::string_view token) {
  std::string out;
  for (size_t pos = 0; pos < token.size();) {
    const std::optional<unsigned char> byte = byte_of_character(next_code_point(token, pos));
    if (!byte) return std::string(token);
    out += static_cast<char>(*byte);
  }
  return out;
}

}  // namespace seer::io
