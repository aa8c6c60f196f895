#include "seer/io/text_pieces.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/limits.h"

namespace seer::io {
namespace {

constexpr size_t kHeadBytes = 4096;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

TextBytes::TextBytes(const std::filesystem::path& path, Packing packing)
    : path_(path), stream_(open_byte_stream(path, packing)) {
  const uint64_t size = std::filesystem::file_size(path);
  longest_ = packing == Packing::none ? limits::kTextBytes : limits::unpacked_bytes(size);
  while (buffer_.size() < kHeadBytes) {
    const std::string_view bytes = stream_->next();
    if (bytes.empty()) break;
    buffer_ += bytes;
  }
  SEER_CHECK(!buffer_.empty(), path.string(), " is empty: nothing is packed in it");
  head_ = buffer_;
  check_head(path, head_.substr(0, kHeadBytes), Packing::none);
  if (head_.starts_with(kByteOrderMark)) begin_ = static_cast<int64_t>(kByteOrderMark.size());
  head_.remove_prefix(static_cast<size_t>(begin_));
}

std::string_view TextBytes::next() {
  if (!is_head_given_) {
    is_head_given_ = true;
    if (!head_.empty()) return head_;
  }
  return stream_->next();
}

Place Piece::at(size_t byte) const {
  const auto lines = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(byte), '\n');
  return {place.line + lines, place.byte + static_cast<int64_t>(byte)};
}

bool Pieces::more() {
  if (bytes_.empty()) bytes_ = source_.next();
  return !bytes_.empty();
}

void Pieces::pass(size_t count) {
  here_.byte += static_cast<int64_t>(count);
  here_.line += std::count(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(count), '\n');
  bytes_.remove_prefix(count);
}

void Pieces::keep(size_t count) {
  const size_t longest = std::min(source_.longest(), limits::kLineBytes);
  SEER_CHECK(kept_.size() + count <= longest, source_.path().string(), ": line ", here_.line,
             " is longer than ", longest, " bytes (byte ", here_.byte,
             "), more than a document of this file may have; split it");
  kept_.append(bytes_.substr(0, count));
  pass(count);
}

bool Pieces::skip_blanks() {
  for (size_t blanks = 0; more();) {
    const size_t count = std::min(bytes_.find_first_not_of(kBlanks), bytes_.size());
    pass(count);
    if (!bytes_.empty()) return true;
    blanks += count;
    SEER_CHECK(blanks <= limits::kBlankBytes, source_.path().string(), ": more than ",
               limits::kBlankBytes, " bytes of blank lines before line ", here_.line, " (byte ",
               here_.byte, "); the file is damaged");
  }
  return false;
}

bool Lines::next(Piece& piece) {
  if (!skip_blanks()) return false;
  piece.place = here_;
  kept_.clear();
  size_t end;
  while ((end = bytes_.find('\n')) == std::string_view::npos) {
    keep(bytes_.size());
    if (!more()) break;
  }
  if (kept_.empty()) {  // the usual line, whole in the buffer
    piece.text = bytes_.substr(0, end);
    pass(end);
  } else {
    if (!bytes_.empty()) keep(end);
    piece.text = kept_;
  }
  return true;
}

void Lines::append_rest(std::string& text) {
  kept_.swap(text);
  while (more()) keep(bytes_.size());
  kept_.swap(text);
}

void ArrayElements::fail_here(const char* what) const {
  fail(source_.path().string(), ": line ", here_.line, " ", what, " (byte ", here_.byte, ")");
}

bool ArrayElements::next(Piece& piece) {
  if (!skip_blanks()) fail_here("ends inside of the JSON array: the file is cut off");
  const char separator = bytes_[0];
  pass(1);
  bool is_done = is_open_ && separator == ']';
  if (!is_open_) {  // the separator was the array's bracket
    is_open_ = true;
    is_done = skip_blanks() && bytes_[0] == ']';
    if (is_done) pass(1);
  }
  if (is_done) {
    if (skip_blanks()) fail_here("goes on behind the end of the JSON array");
    return false;
  }
  if (!skip_blanks()) fail_here("ends inside of the JSON array: the file is cut off");
  piece.place = here_;
  keep_element();
  piece.text = kept_;
  return true;
}

void ArrayElements::keep_element() {
  kept_.clear();
  int64_t depth = 0;
  bool is_string = false, is_escaped = false;
  const auto ends_at = [&](char c) {
    if (is_string) {
      is_string = is_escaped || c != '"';
      is_escaped = !is_escaped && c == '\\';
      return false;
    }
    if (depth == 0 && (c == ',' || c == ']')) return true;
    is_string = c == '"';
    depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    return false;
  };
  while (more()) {
    const auto end = std::find_if(bytes_.begin(), bytes_.end(), ends_at);
    const bool is_found = end != bytes_.end();
    keep(static_cast<size_t>(end - bytes_.begin()));
    if (is_found) return;
  }
  fail_here("ends inside of the JSON array: the file is cut off");
}

}  // namespace seer::io
