#pragma once
// The printable characters that stand for bytes in byte-level vocabularies (GPT-2): bytes that are
// printable in Latin-1 are themselves, the others are U+0100 and on, in order.

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace seer::io {

// UTF-8 of each byte's character.
const std::array<std::string, 256>& byte_characters();
// The byte of a character.
std::optional<unsigned char> byte_of_character(char32_t code_point);

std::string bytes_to_characters(std::string_view bytes);
// The bytes that a token stands for; a token with any other character stands for itself.
std::string characters_to_bytes(std::string_view token);

}  // namespace seer::io
