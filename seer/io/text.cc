#include "seer/io/text.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"
#include "seer/io/text_pieces.h"

namespace seer::io {

namespace {

using FoundDocument = std::variant<Document, BrokenDocument>;

// Keeps of a document's object only what is read.
bool is_read(int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
  return depth != 1 || event != nlohmann::json::parse_event_t::key || value == "text";
}

// An object with "text"; in an array a string is one, too.
FoundDocument document_of(const Piece& piece, bool is_element = false) {
  const size_t bad = find_invalid_utf8(piece.text);
  if (bad != std::string_view::npos) return BrokenDocument{piece.at(bad), "is not UTF-8"};
  JsonProblem problem;
  nlohmann::json json = parse_json(piece.text, &problem, is_read);
  if (json.is_discarded()) return BrokenDocument{piece.at(problem.byte), problem.what};
  if (is_element && json.is_string()) {
    return Document{std::move(json.get_ref<std::string&>()), piece.place};
  }
  const auto text = json.is_object() ? json.find("text") : json.end();
  if (!json.is_object() || text == json.end() || !text->is_string()) {
    return BrokenDocument{piece.place, "is not a JSON object with a string \"text\""};
  }
  return Document{std::move(text->get_ref<std::string&>()), piece.place};
}

[[noreturn]] void fail_broken(const std::filesystem::path& path, const BrokenDocument& broken,
                              const std::string& remedy) {
  fail(path.string(), ": line ", broken.place.line, " ", broken.reason, ", at byte ",
       broken.place.byte, " of the file (from 0, unpacked); ", remedy);
}

// A whole file that is one text.
std::string whole_text(TextBytes& bytes) {
  const auto& path = bytes.path();
  std::string text;
  std::error_code error;
  if (const auto size = std::filesystem::file_size(path, error); !error) {
    text.reserve(std::min<size_t>(size + 1, bytes.longest()));
  }
  for (std::string_view piece; !(piece = bytes.next()).empty();) {
    SEER_CHECK(text.size() + piece.size() <= bytes.longest(), path.string(), " has more than ",
               bytes.longest(), " bytes, the most that one text of this file may have; split it ",
               "into documents, e.g. JSON lines");
    text += piece;
  }
  SEER_CHECK(!text.empty(), path.string(), " is empty: it holds a byte order mark alone");
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string::npos) {
    Place place = Piece{text, {}}.at(bad);
    place.byte += bytes.begin();
    fail_broken(path, {place, "is not UTF-8"}, "convert it to UTF-8");
  }
  return text;
}

bool has_only_blanks(std::string_view text) {
  return text.find_first_not_of(kBlanks) == std::string_view::npos;
}

bool is_document(std::string_view json) {
  return std::holds_alternative<Document>(document_of({json, {}}));
}

// Whether a text is a JSON array of objects with "text". No more than one of them is kept.
bool is_array_of_documents(std::string_view text) {
  using Event = nlohmann::json::parse_event_t;
  bool all = true;
  const auto watch = [&](int depth, Event event, nlohmann::json& value) {
    if (depth == 2 && event == Event::key) return value == "text";
    if (depth != 1 || event == Event::object_start) return true;
    all = all && event == Event::object_end && value.contains("text") && value["text"].is_string();
    return false;
  };
  JsonProblem problem;
  return parse_json(text, &problem, watch).is_array() && all;
}

// Whether a plain text is documents in JSON, line by line or as a whole: nobody wants to train on its
// braces.
bool is_json(std::string_view text) {
  // Other texts are told apart by how they begin, as what follows may take its time.
  std::string begin;
  for (const char c : text.substr(0, 4096)) {
    if (kBlanks.find(c) == kBlanks.npos) begin += c;
    if (begin.size() == 2) break;
  }
  if (begin == "[{") return is_array_of_documents(text);
  if (begin != "{\"") return false;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    if (!has_only_blanks(line) && !is_document(line)) return is_document(text);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return true;
}

}  // namespace

void SkippedDocuments::add(BrokenDocument&& document) {
  constexpr size_t kPlaces = 3;  // that are told
  ++count;
  // They come nearly in order: a broken line is known when it is read, a text without a token later.
  const auto after = std::find_if(first.begin(), first.end(), [&](const BrokenDocument& other) {
    return other.place.byte > document.place.byte;
  });
  first.insert(after, std::move(document));
  if (first.size() > kPlaces) first.pop_back();
}

std::string SkippedDocuments::places() const {
  std::string text;
  for (const auto& [place, reason] : first) {
    text += message(text.empty() ? "" : ", ", "line ", place.line, " ", reason, " (byte ",
                    place.byte, ")");
  }
  return count > static_cast<int64_t>(first.size()) ? text + ", ..." : text;
}

void check_skipped(const std::filesystem::path& path, const SkippedDocuments& skipped,
                   int64_t documents, bool are_all) {
  SEER_CHECK(2 * skipped.count <= documents, path.string(), ": ", skipped.count, " of ",
             are_all ? "" : "the first ", counted(documents, "document"),
             ", more than half, cannot be used: ", skipped.places(),
             "; want a JSON object with a string \"text\" on each line, in UTF-8");
}

struct TextReader::State {
  State(const std::filesystem::path& path, Broken mode)
      : kind(text_kind(path)), bytes(path, kind.packing), broken(mode) {
    if (kind.form == TextForm::json) {
      open_json();
    } else if (kind.form == TextForm::lines) {
      pieces = std::make_unique<Lines>(bytes);
    }
  }

  // What a .json file is shows in how it begins.
  void open_json() {
    auto lines = std::make_unique<Lines>(bytes);
    if (lines->front() == '[') {
      is_array = true;
      pieces = std::make_unique<ArrayElements>(*lines);
      return;
    }
    Piece piece;
    if (!lines->next(piece)) fail_without_document();
    SEER_CHECK(piece.text[0] == '{', bytes.path().string(), ": line ", piece.place.line,
               " begins neither a JSON object nor a JSON array (byte ", piece.place.byte,
               "); is it plain text? then call it .txt");
    JsonProblem problem;
    if (!parse_json(piece.text, &problem, is_read).is_discarded()) {
      pending = document_of(piece);
      pieces = std::move(lines);
      return;
    }
    // One object over several lines.
    std::string whole(piece.text);
    lines->append_rest(whole);
    pending = document_of({whole, piece.place});
    if (auto* fault = std::get_if<BrokenDocument>(&*pending)) {
      fail_broken(bytes.path(), *fault,
                  "want JSON lines, a JSON array of documents, or one JSON object with \"text\"");
    }
  }

  [[noreturn]] void fail_without_document() const {
    fail(bytes.path().string(), " has no document: want a JSON object with a string \"text\"");
  }

  std::optional<FoundDocument> next() {
    if (pending) return std::exchange(pending, std::nullopt);
    if (kind.form == TextForm::plain) {
      if (documents > 0) return std::nullopt;
      std::string text = whole_text(bytes);
      SEER_CHECK(
          !is_json(text), bytes.path().string(),
          " holds JSON documents, not plain text as its name says: call it .jsonl (or .json)");
      return Document{std::move(text), {1, bytes.begin()}};
    }
    Piece piece;
    if (!pieces || !pieces->next(piece)) return std::nullopt;
    last_byte = piece.place.byte + static_cast<int64_t>(piece.text.size());
    return document_of(piece, is_array);
  }

  // Documents that cannot be used are noticed before millions of them have been read.
  void check_first_documents() const {
    const bool is_enough =
        last_byte >= limits::kSampleBytes &&
        (documents >= limits::kSampleDocuments || last_byte >= limits::kLargeSampleBytes);
    if (is_enough) check_skipped(bytes.path(), skipped, documents, /*are_all=*/false);
  }

  TextKind kind;
  TextBytes bytes;
  Broken broken;
  bool is_array = false;
  std::unique_ptr<Pieces> pieces;
  std::optional<FoundDocument> pending;
  int64_t documents = 0, last_byte = 0;
  SkippedDocuments skipped;
};

TextReader::TextReader(const std::filesystem::path& path, Broken broken)
    : state_(std::make_unique<State>(path, broken)) {}
TextReader::~TextReader() = default;

const SkippedDocuments& TextReader::skipped() const {
  return state_->skipped;
}

int64_t TextReader::documents() const {
  return state_->documents;
}

void TextReader::skip(BrokenDocument&& document) {
  state_->skipped.add(std::move(document));
  state_->check_first_documents();
}

std::optional<Document> TextReader::next() {
  State& state = *state_;
  while (auto found = state.next()) {
    ++state.documents;
    auto* document = std::get_if<Document>(&*found);
    if (document && !document->text.empty()) return std::move(*document);
    if (!document && state.broken == Broken::fail) {
      fail_broken(state.bytes.path(), std::get<BrokenDocument>(*found),
                  "mend the line, or take it out");
    }
    skip(document ? BrokenDocument{document->place, "has no text"}
                  : std::move(std::get<BrokenDocument>(*found)));
    if (document && state.broken == Broken::fail) return std::move(*document);
  }
  if (state.documents == 0) state.fail_without_document();
  return std::nullopt;
}

void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take) {
  TextReader reader(path);
  while (auto document = reader.next()) take(std::move(document->text));
}

void check_text_file(const std::filesystem::path& path) {
  TextBytes(path, text_kind(path).packing);
}

std::string read_text(const std::filesystem::path& path) {
  TextBytes bytes(path, packing_of(path));
  return whole_text(bytes);
}

}  // namespace seer::io
