#include "seer/io/text_kind.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "seer/base/error.h"
#include "seer/base/stand_in.h"
#include "seer/base/utf8.h"

namespace seer::io {
namespace {

constexpr const char* kUnpack = "unpack it, or pack it with gzip or zstd";
constexpr const char* kConvert =
    "write it as JSON lines, e.g. pandas.DataFrame.to_json(orient=\"records\", lines=True)";
constexpr const char* kExport = "save it as plain text (.txt)";
constexpr const char* kNoText = "give a file of texts";

// Endings that are known and not read.
struct Refused {
  std::string_view what, remedy;
  std::initializer_list<std::string_view> endings;
};
const Refused kRefusedEndings[] = {
    {"an archive or packed in a way that is not read",
     kUnpack,
     {"7z", "br", "bz2", "lz4", "lzma", "rar", "tar", "tbz", "tgz", "txz", "xz", "z", "zip"}},
    {"packed twice", "unpack it once", {"gz", "zst"}},
    {"a table",
     kConvert,
     {"arrow", "avro", "csv", "feather", "h5", "hdf5", "ipc", "orc", "parquet", "tsv", "xls",
      "xlsx"}},
    {"a database", kConvert, {"db", "lmdb", "mdb", "sqlite", "sqlite3"}},
    {"a document with a layout",
     kExport,
     {"doc", "docx", "epub", "mobi", "odt", "pdf", "ppt", "pptx", "ps", "rtf"}},
    {"not text",
     kNoText,
     {"bin", "gguf", "npy", "npz", "pickle", "pkl", "pt", "pth", "safetensors", "tokens"}},
};

// First bytes that no text has.
struct Magic {
  std::string_view bytes, what, remedy;
};
constexpr std::string_view kGzip("\x1F\x8B"), kZstd("\x28\xB5\x2F\xFD");
constexpr std::string_view kUtf8 = "convert it to UTF-8, e.g. with iconv -f utf-16 -t utf-8";
const Magic kMagic[] = {
    {kGzip, "packed with gzip", "add .gz to its name"},
    {kZstd, "packed with Zstandard", "add .zst to its name"},
    {"BZh", "packed with bzip2", kUnpack},
    {{"\xFD\x37zXZ\x00", 6}, "packed with xz", kUnpack},
    {{"PK\x03\x04", 4}, "a zip archive (or .docx, .xlsx, .epub)", kUnpack},
    {"7z\xBC\xAF\x27\x1C", "a 7z archive", kUnpack},
    {"Rar!\x1A\x07", "a rar archive", kUnpack},
    {"PAR1", "a Parquet file", kConvert},
    {"ARROW1", "an Arrow file", kConvert},
    {"Obj\x01", "an Avro file", kConvert},
    {"\x89HDF", "an HDF5 file", kConvert},
    {"SQLite format 3", "an SQLite database", kConvert},
    {"%PDF-", "a PDF", kExport},
    {"{\\rtf", "an RTF document", kExport},
    {"\xD0\xCF\x11\xE0", "an Office document", kExport},
    {"\xFF\xFE", "UTF-16", kUtf8},
    {"\xFE\xFF", "UTF-16", kUtf8},
};

// Takes the part behind the last dot off `name`.
std::string take_ending(std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0) return "";
  const std::string ending = name.substr(dot + 1);
  name.resize(dot);
  return ending;
}

bool is_skippable_frame(std::string_view head) {  // of Zstandard: pzstd begins with one
  return head.size() >= 4 && (head[0] & 0xF0) == 0x50 && head.substr(1, 3) == "\x2A\x4D\x18";
}

}  // namespace

Packing packing_of(const std::filesystem::path& path) {
  std::string name = lower_ascii(path.filename().string());
  const std::string ending = take_ending(name);
  return ending == "zst" ? Packing::zstd : ending == "gz" ? Packing::gzip : Packing::none;
}

TextKind text_kind(const std::filesystem::path& path) {
  std::string name = lower_ascii(path.filename().string());
  TextKind kind{TextForm::plain, packing_of(path)};
  std::string ending = take_ending(name);
  if (kind.packing != Packing::none) ending = take_ending(name);
  for (const auto& [what, remedy, endings] : kRefusedEndings) {
    if (std::find(endings.begin(), endings.end(), ending) == endings.end()) continue;
    fail(path.string(), " is ", what, " by its name (.", ending, "): ", remedy,
         "; texts are read from ", kTextFiles);
  }
  if (ending == "jsonl" || ending == "ndjson" || ending == "jsonlines") {
    kind.form = TextForm::lines;
  } else if (ending == "json") {
    kind.form = TextForm::json;
  }
  return kind;
}

void check_head(const std::filesystem::path& path, std::string_view head, Packing packing) {
  // A file that is cut off so early is called that by who unpacks it.
  const auto begins = [&](std::string_view magic) {
    return head.starts_with(magic.substr(0, std::min(head.size(), magic.size())));
  };
  const bool is_zstd = begins(kZstd) || is_skippable_frame(head);
  if (packing == Packing::zstd && is_zstd) return;
  if (packing == Packing::gzip && begins(kGzip)) return;
  const std::string other = packing == Packing::none ? lfs_pointer(head) : stand_in(head);
  if (!other.empty()) fail(path.string(), " ", other);
  const char* claim = packing == Packing::zstd ? "Zstandard" : "gzip";
  for (const auto& [bytes, what, remedy] : kMagic) {
    if (!head.starts_with(bytes)) continue;
    if (packing == Packing::none)
      fail(path.string(), " is ", what, " by its first bytes: ", remedy);
    fail(path.string(), " cannot be unpacked: it is not ", claim, ", as its name says, but ", what);
  }
  SEER_CHECK(packing == Packing::none, path.string(), " cannot be unpacked: it is not ", claim,
             ", as its name says; is it plain text? then take the ending off");
  const size_t zero = head.find('\0');
  SEER_CHECK(zero == std::string_view::npos, path.string(), " is not text: byte ", zero,
             " is zero; give a file of texts in UTF-8");
}

}  // namespace seer::io
