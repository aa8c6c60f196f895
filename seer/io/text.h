#pragma once
// Documents of text files, good ones and broken ones, one at a time: a file may be larger than memory.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seer/io/text_kind.h"

namespace seer::io {

// A place in a file.
struct Place {
  int64_t line = 1;  // from 1
  int64_t byte = 0;  // of the unpacked file, from 0
};

struct Document {
  std::string text;
  Place place;  // of the first byte of its JSON, or of a plain file
};

struct BrokenDocument {
  Place place;         // of the fault
  std::string reason;  // "is not UTF-8": what is said of the line
};

// Documents that cannot be used, and the first places of them.
struct SkippedDocuments {
  int64_t count = 0;
  std::vector<BrokenDocument> first;  // of the file, three at most

  void add(BrokenDocument&& document);
  // "line 2 is not UTF-8 (byte 17), line 9 has no text (byte 80), ..."
  std::string places() const;
};
// Error: more than half of a file's documents, or of its first ones, are.
void check_skipped(const std::filesystem::path& path, const SkippedDocuments& skipped,
                   int64_t documents, bool are_all = true);

// Reads a file as text_kind() says. A byte order mark at the beginning and blank lines between
// documents are nothing. Fields other than "text" may hold what Python writes (NaN, numbers of any
// size). Error: not there, another format, empty or without a document, damaged, a document that is
// larger than limits allow (the file, line and byte).
class TextReader {
 public:
  // A document that is not UTF-8, not JSON, or has no string "text": an error, or counted and passed
  // over, as is one without a character. More than half of the first ones that cannot be used (or,
  // always, are empty) is an error as soon as enough are seen.
  enum class Broken { fail, skip };
  explicit TextReader(const std::filesystem::path& path, Broken broken = Broken::fail);
  ~TextReader();
  TextReader(const TextReader&) = delete;
  TextReader& operator=(const TextReader&) = delete;

  // Nothing: the end.
  std::optional<Document> next();
  // Counts one that next() gave, and that turned out not to be of use, as passed over.
  void skip(BrokenDocument&& document);
  // With Broken::skip: what was passed over so far.
  const SkippedDocuments& skipped() const;
  // What next() gave so far, and what was passed over.
  int64_t documents() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What shows at once: the file is there, of a kind that is read by its name and first bytes. Error as
// TextReader's.
void check_text_file(const std::filesystem::path& path);

// All of TextReader's documents.
void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take);

// A file that is one text whatever its name says (a prompt): UTF-8, unpacked, without a byte
// order mark. Error as TextReader's.
std::string read_text(const std::filesystem::path& path);

}  // namespace seer::io
