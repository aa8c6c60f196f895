#pragma once
// A text file cut into pieces that hold one JSON value each, for TextReader.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "seer/io/byte_stream.h"
#include "seer/io/text.h"

namespace seer::io {

inline constexpr std::string_view kBlanks = " \t\r\n";  // JSON's white space

// The unpacked bytes of a file, whose beginning is looked at first.
class TextBytes {
 public:
  TextBytes(const std::filesystem::path& path, Packing packing);

  // Some 4 KiB, or all that there is; without a byte order mark.
  std::string_view head() const { return head_; }
  // The next bytes, head() first, valid until the next call; empty at the end.
  std::string_view next();
  // Where head() begins in the file.
  int64_t begin() const { return begin_; }
  // How many bytes a text may have that is kept in memory.
  size_t longest() const { return longest_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  std::string_view head_;
  int64_t begin_ = 0;
  size_t longest_;
  bool is_head_given_ = false;
};

struct Piece {
  std::string_view text;
  Place place;

  Place at(size_t byte) const;
};

class Pieces {
 public:
  explicit Pieces(TextBytes& bytes) : source_(bytes) { here_.byte = bytes.begin(); }
  virtual ~Pieces() = default;
  // False: the end. The piece is valid until the next call. Error: longer than it may be, or more
  // blanks than any file has.
  virtual bool next(Piece& piece) = 0;
  // The first character in front that is no blank; NUL: there is none.
  char front() { return skip_blanks() ? bytes_[0] : '\0'; }

 protected:
  // Passes over blanks and ends of lines. False: the end of the file.
  bool skip_blanks();
  // Whether bytes_ holds some.
  bool more();
  // Moves what is in front to kept_.
  void keep(size_t count);
  void pass(size_t count);

  TextBytes& source_;
  std::string_view bytes_;  // in front
  Place here_;              // of bytes_
  std::string kept_;
};

// Lines that hold something, without what blanks they begin with and without their ends.
class Lines : public Pieces {
 public:
  using Pieces::Pieces;
  bool next(Piece& piece) override;
  // What follows the last piece, added to `text`.
  void append_rest(std::string& text);
};

// Elements of an array. Error: it does not end, or the file goes on behind it.
class ArrayElements : public Pieces {
 public:
  // Goes on where the other ones are.
  explicit ArrayElements(const Pieces& begun) : Pieces(begun) {}
  bool next(Piece& piece) override;

 private:
  // Up to the next ',' or ']' outside of the element's own brackets and strings.
  void keep_element();
  [[noreturn]] void fail_here(const char* what) const;
  bool is_open_ = false;
};

}  // namespace seer::io
