#include "seer/train/data/token_file.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>
#include <vector>

#include "seer/base/checksum.h"
#include "seer/base/cpus.h"
#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/file_lock.h"
#include "seer/base/json.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/byte_stream.h"
#include "seer/io/safetensors.h"

namespace seer::train {
namespace {

constexpr const char* kForm = "seer tokens 3";
constexpr int64_t kNarrowVocabulary = 65536;
constexpr size_t kBatchBytes = 2 << 20;  // of text per thread: enough to keep all threads busy
constexpr size_t kNameLength = 300;      // more than that of a file
constexpr size_t kDocumentBytes = 64;    // that a document takes beside its text
constexpr uint64_t kLongReading = uint64_t{4} << 30;  // bytes: shown as progress

// What changes when a file is written.
struct Stamp {
  uint64_t size;
  std::filesystem::file_time_type time;
  bool operator==(const Stamp&) const = default;
};
Stamp stamp_of(const std::filesystem::path& path) {
  return {std::filesystem::file_size(path), std::filesystem::last_write_time(path)};
}

std::string checksum_of_file(const std::filesystem::path& path, bool show_progress) {
  const auto stream = io::open_byte_stream(path, io::Packing::none);
  const uint64_t size = std::filesystem::file_size(path);
  Progress progress("read " + path.filename().string(), static_cast<int64_t>(size >> 20), 0,
                    show_progress && size >= kLongReading);
  Checksum sum;
  uint64_t done = 0;
  for (std::string_view bytes; !(bytes = stream->next()).empty();) {
    sum.add(bytes.data(), bytes.size());
    done += bytes.size();
    progress.update(static_cast<int64_t>(done >> 20), "MiB");
  }
  return sum.hex();
}

// The name follows from what is read: size and time of change may be those of other bytes.
std::filesystem::path cached_path(const std::filesystem::path& text,
                                  const std::filesystem::path& tokenizer_folder,
                                  const std::filesystem::path& cache, bool show_progress) {
  const std::string name = text.filename().string();
  std::string key = message(kForm, '|', name, '|', checksum_of_file(text, show_progress));
  for (const char* file : kTokenizerFiles) {
    const auto path = tokenizer_folder / file;
    if (std::filesystem::exists(path)) key += message('|', file, '|', checksum_of(read_file(path)));
  }
  return cache / (name.substr(0, name.find('.')) + "-" + checksum_of(key) + ".tokens");
}

// Documents in, their tokens out in the same order; a batch at a time on all threads.
template <class Token>
class Tokeniser {
 public:
  // Documents without a token are skipped in `reader`.
  Tokeniser(const io::Tokenizer& tokenizer, int threads, io::TextReader& reader)
      : tokenizer_(tokenizer), threads_(threads), reader_(reader) {}

  void add(io::Document&& document) {
    waiting_bytes_ += document.text.size() + kDocumentBytes;
    waiting_.push_back(std::move(document));
    if (waiting_bytes_ >= kBatchBytes * static_cast<size_t>(threads_)) flush();
  }

  void flush() {
    std::vector<std::vector<int32_t>> ids(waiting_.size());
    std::atomic<size_t> next{0};
    std::exception_ptr error;
    std::mutex error_lock;
    const auto work = [&] {
      try {
        for (size_t i = next++; i < waiting_.size(); i = next++) {
          ids[i] = tokenizer_.encode(waiting_[i].text, /*special=*/false);
        }
      } catch (...) {
        const std::lock_guard lock(error_lock);
        error = std::current_exception();
      }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < threads_; ++i) threads.emplace_back(work);
    work();
    for (auto& thread : threads) thread.join();
    if (error) std::rethrow_exception(error);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i].empty()) {
        reader_.skip({waiting_[i].place, "has no text"});
        continue;
      }
      const int32_t largest = *std::max_element(ids[i].begin(), ids[i].end());
      SEER_CHECK(static_cast<int64_t>(largest) <= int64_t{std::numeric_limits<Token>::max()},
                 "token ", largest, " of a tokenizer with ", tokenizer_.vocab_size(), " tokens");
      tokens.insert(tokens.end(), ids[i].begin(), ids[i].end());
      offsets.push_back(static_cast<int64_t>(tokens.size()));
    }
    waiting_.clear();
    waiting_bytes_ = 0;
  }

  std::vector<Token> tokens;
  std::vector<int64_t> offsets{0};

 private:
  const io::Tokenizer& tokenizer_;
  int threads_;
  io::TextReader& reader_;
  std::vector<io::Document> waiting_;
  size_t waiting_bytes_ = 0;
};

template <class T>
io::TensorRecord record(const char* dtype, const std::vector<T>& values) {
  return {dtype,
          {static_cast<int64_t>(values.size())},
          reinterpret_cast<const std::byte*>(values.data()),
          values.size() * sizeof(T)};
}

nlohmann::json to_json(const io::SkippedDocuments& skipped) {
  auto first = nlohmann::json::array();
  for (const auto& [place, reason] : skipped.first) {
    first.push_back({place.line, place.byte, reason});
  }
  return {{"count", skipped.count}, {"first", first}};
}

// `where`: for errors.
io::SkippedDocuments skipped_of(const std::string& text, const std::string& where) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  std::string problem;
  const nlohmann::json parsed = parse_json(text, &problem);
  SEER_CHECK(problem.empty(), where, " ", problem);
  const JsonNode json(parsed, where);
  io::SkippedDocuments skipped{json.at("count").integer(0, kMost), {}};
  const JsonNode first = json.at("first");
  for (size_t i = 0; i < first.array_size(); ++i) {
    const JsonNode one = first.at(i);
    const io::Place place{one.at(size_t{0}).integer(0, kMost), one.at(1).integer(0, kMost)};
    skipped.first.push_back({place, one.at(2).string()});
  }
  return skipped;
}

template <class Token>
void tokenise(const std::filesystem::path& text, const Stamp& stamp, const io::Tokenizer& tokenizer,
              int threads, const std::filesystem::path& to, bool show_progress) {
  Progress progress("tokenise " + text.filename().string(), 0, 0, show_progress);
  io::TextReader reader(text, io::TextReader::Broken::skip);
  Tokeniser<Token> tokeniser(tokenizer, threads, reader);
  double bytes = 0;
  while (auto document = reader.next()) {
    bytes += static_cast<double>(document->text.size());
    tokeniser.add(std::move(*document));
    progress.update(static_cast<int64_t>(tokeniser.offsets.size()) - 1,
                    count_text(bytes) + " bytes read");
  }
  tokeniser.flush();
  progress.update(static_cast<int64_t>(tokeniser.offsets.size()) - 1,
                  count_text(static_cast<double>(tokeniser.tokens.size())) + " tokens");
  const io::SkippedDocuments& skipped = reader.skipped();
  io::check_skipped(text, skipped, reader.documents());
  SEER_CHECK(stamp_of(text) == stamp, text.string(),
             " was written while it was read: start again when it is complete");
  Checksum hash;
  hash.add(tokeniser.offsets.data(), tokeniser.offsets.size() * sizeof(int64_t));
  hash.add(tokeniser.tokens.data(), tokeniser.tokens.size() * sizeof(Token));
  std::map<std::string, std::string> metadata{
      {"form", kForm},
      {"hash", hash.hex()},
      {"source", one_line(text.filename().string(), kNameLength)}};  // names need not be UTF-8
  if (skipped.count > 0) metadata["skipped"] = json_text(to_json(skipped));
  io::write_safetensors(to,
                        {{"tokens", record(sizeof(Token) == 2 ? "U16" : "U32", tokeniser.tokens)},
                         {"offsets", record("I64", tokeniser.offsets)}},
                        metadata, /*with_checksum=*/true);
}

// Nothing: there is none, or a damaged one, which is told and made again.
std::shared_ptr<const TokenFile> cached(const std::filesystem::path& path, bool tell) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    return std::make_shared<const TokenFile>(path);
  } catch (const Error& error) {
    if (tell) print_line(message(error.what(), "; it is made again"));
    return nullptr;
  }
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  memory_ = file.mapping();
  const auto bad = [&](const std::string& what) {
    fail(path.string(), " is not a token file: ", what);
  };
  file.check_sum();
  const auto& metadata = file.metadata();
  const auto form = metadata.find("form");
  if (form == metadata.end() || form->second != kForm)
    bad("it does not say \"" + std::string(kForm) + "\"");
  const auto& tokens = file.at("tokens");
  const auto& offsets = file.at("offsets");
  if (tokens.dtype != "U16" && tokens.dtype != "U32") bad("tokens are " + tokens.dtype);
  if (offsets.dtype != "I64" || offsets.bytes < 8) bad("offsets are " + offsets.dtype);
  offsets_ = {reinterpret_cast<const int64_t*>(offsets.data), offsets.bytes / 8};
  const int64_t width = tokens.dtype == "U16" ? 2 : 4;
  if (offsets_.front() != 0 || !std::is_sorted(offsets_.begin(), offsets_.end()) ||
      offsets_.back() * width != static_cast<int64_t>(tokens.bytes)) {
    bad("its offsets do not fit its tokens");
  }
  if (width == 2) {
    narrow_ = reinterpret_cast<const uint16_t*>(tokens.data);
  } else {
    wide_ = reinterpret_cast<const uint32_t*>(tokens.data);
  }
  if (metadata.count("hash") == 0 || metadata.count("source") == 0) bad("its metadata lack a name");
  hash_ = metadata.at("hash");
  source_ = metadata.at("source");
  // Not there in files of texts that were all good.
  if (const auto skipped = metadata.find("skipped"); skipped != metadata.end()) {
    skipped_ = skipped_of(skipped->second, path.string() + " (skipped)");
  }
}

TokenFile::TokenFile(std::vector<int32_t> document, std::string source)
    : source_(std::move(source)) {
  struct Memory {
    std::vector<int32_t> tokens;
    std::vector<int64_t> offsets;
  };
  const auto size = static_cast<int64_t>(document.size());
  hash_ = checksum_of(
      {reinterpret_cast<const char*>(document.data()), document.size() * sizeof(int32_t)});
  const auto memory = std::make_shared<const Memory>(Memory{std::move(document), {0, size}});
  offsets_ = memory->offsets;
  wide_ = reinterpret_cast<const uint32_t*>(memory->tokens.data());
  memory_ = memory;
}

void TokenFile::copy(int64_t begin, int64_t count, int32_t* out) const {
  if (narrow_ != nullptr) {
    std::copy_n(narrow_ + begin, count, out);
  } else {
    std::copy_n(wide_ + begin, count, out);
  }
}

std::shared_ptr<const TokenFile> open_tokens(const std::filesystem::path& text,
                                             const io::Tokenizer& tokenizer,
                                             const std::filesystem::path& tokenizer_folder,
                                             const std::filesystem::path& cache, int threads,
                                             bool show_progress) {
  io::check_text_file(text);
  const Stamp stamp = stamp_of(text);
  const auto path = cached_path(text, tokenizer_folder, cache, show_progress);
  if (auto file = cached(path, /*tell=*/false)) return file;
  // Of several processes that need it one makes it.
  const auto lock_path = path.parent_path() / ("." + path.filename().string() + ".lock");
  FileLock lock(lock_path);
  if (!lock.try_lock()) {
    if (show_progress) {
      print_line("tokenise " + text.filename().string() +
                 ": waiting for another process that does it");
    }
    lock.lock();
  }
  lock.beat();
  // A process that waits for the lock then finds the tokens, or repeats the error.
  struct Removal {
    const std::filesystem::path& path;
    ~Removal() {
      std::error_code error;
      std::filesystem::remove(path, error);
    }
  } const removal{lock_path};
  remove_unfinished(path.parent_path(), path.filename().string());
  if (auto file = cached(path, show_progress)) return file;
  if (threads <= 0) threads = usable_cpus();
  const auto make =
      tokenizer.vocab_size() <= kNarrowVocabulary ? tokenise<uint16_t> : tokenise<uint32_t>;
  make(text, stamp, tokenizer, threads, path, show_progress);
  return std::make_shared<const TokenFile>(path);
}

}  // namespace seer::train
