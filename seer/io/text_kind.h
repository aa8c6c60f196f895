#pragma once
// What a file of texts is: by its name, and by its first bytes, which must not say otherwise.

#include <filesystem>
#include <string_view>

namespace seer::io {

// For --help: the files that every verb takes texts from.
inline constexpr const char* kTextFiles =
    ".txt, .md (one text), .jsonl, .ndjson, .json (\"text\" of each object), also as .gz or .zst";

enum class Packing { none, gzip, zstd };
enum class TextForm {
  plain,  // the file is one text
  lines,  // each line is a JSON object with "text"
  json,   // such lines, an array of such objects or of strings, or one such object
};

struct TextKind {
  TextForm form = TextForm::plain;
  Packing packing = Packing::none;
};

// By the ending, in any case; a name without a known ending is plain text. Error: an ending that is
// known and not read (.parquet, .zip, .pdf ...), with what to do.
TextKind text_kind(const std::filesystem::path& path);
Packing packing_of(const std::filesystem::path& path);

// Error: `head`, how the file begins, is not packed as `packing` says, or, without packing, is what
// no text begins with (a packed file, UTF-16, zero bytes ...). For unpacked bytes: Packing::none.
void check_head(const std::filesystem::path& path, std::string_view head, Packing packing);

}  // namespace seer::io
