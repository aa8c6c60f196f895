#include "seer/train/data/data.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/progress.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/io/tokenizer/token_ids.h"

namespace seer::train {
namespace {

// Streams of random numbers, one for each use.
constexpr uint64_t kDocumentOrder = 0x646f63756d656e74, kWindowOrder = 0x6f72646572,
                   kRandomWindow = 0x77696e646f77;

std::vector<int64_t> permutation(int64_t n, Random random) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

uint64_t stream_of(uint64_t use, uint64_t epoch) {
  return mix64(use) + epoch;
}

[[noreturn]] void too_short(const TokenStream& stream, int64_t length) {
  fail(stream.file().source(), " has ", counted(stream.size(), "token"),
       ", fewer than one window of ", length, ": give more text or a smaller length");
}

// Names the first token that the model does not have, and its document.
void check_vocabulary(const std::filesystem::path& text, const TokenFile& file,
                      const io::Tokenizer& tokenizer, int64_t vocab_size) {
  const std::vector<int32_t> around = {tokenizer.bos_id().value_or(0),
                                       tokenizer.eos_id().value_or(0)};
  io::check_token_ids(around, vocab_size, "documents of " + text.string(), &tokenizer);
  if (tokenizer.vocab_size() <= vocab_size) return;
  constexpr int64_t kAtOnce = 1 << 16;
  std::vector<int32_t> some;
  for (int64_t begin = 0; begin < file.num_tokens(); begin += kAtOnce) {
    some.resize(static_cast<size_t>(std::min(kAtOnce, file.num_tokens() - begin)));
    file.copy(begin, static_cast<int64_t>(some.size()), some.data());
    const auto wrong = std::find_if(some.begin(), some.end(),
                                    [&](int32_t id) { return id < 0 || id >= vocab_size; });
    if (wrong == some.end()) continue;
    const auto after = std::upper_bound(file.offsets().begin(), file.offsets().end(),
                                        begin + (wrong - some.begin()));
    io::check_token_ids({&*wrong, 1}, vocab_size,
                        message(text.string(), ", document ", after - file.offsets().begin()),
                        &tokenizer);
  }
}

void report_skipped(const std::filesystem::path& text, const TokenFile& file) {
  const io::SkippedDocuments& skipped = file.skipped();
  if (skipped.count == 0) return;
  print_line(message(text.string(), ": ", skipped.count, " of ",
                     file.num_documents() + skipped.count, " documents ",
                     skipped.count == 1 ? "is" : "are", " skipped: ", skipped.places()));
}

}  // namespace

void check(const DataSettings& settings) {
  DataSettings copy = settings;
  each_setting(copy, CheckSetting());
  if (!settings.weights.empty() && settings.weights.size() != settings.train.size()) {
    throw UsageError(message("--weights: ", settings.weights.size(), " for ",
                             counted(static_cast<int64_t>(settings.train.size()), "text"),
                             " in --data"));
  }
}

TokenStream::TokenStream(std::shared_ptr<const TokenFile> file, const io::Tokenizer& tokenizer)
    : file_(std::move(file)), bos_(tokenizer.bos_id().value_or(-1)) {
  const auto eos = tokenizer.eos_id();
  SEER_CHECK(eos.has_value(),
             "the tokenizer has no end-of-text token, which keeps documents apart: name one as "
             "eos_token in its tokenizer_config.json");
  eos_ = *eos;
  std::vector<int64_t> order(static_cast<size_t>(file_->num_documents()));
  std::iota(order.begin(), order.end(), int64_t{0});
  set_order(std::move(order));
}

void TokenStream::set_order(std::vector<int64_t> order) {
  order_ = std::move(order);
  begins_.assign(1, 0);
  const auto offsets = file_->offsets();
  const int64_t added = bos_ >= 0 ? 2 : 1;
  for (const int64_t document : order_) {
    const auto at = static_cast<size_t>(document);
    begins_.push_back(begins_.back() + offsets[at + 1] - offsets[at] + added);
  }
}

TokenStream TokenStream::shuffled(uint64_t seed, uint64_t epoch) const {
  TokenStream other = *this;
  other.set_order(
      permutation(file_->num_documents(), Random(seed, stream_of(kDocumentOrder, epoch))));
  return other;
}

void TokenStream::copy(int64_t begin, int64_t count, int32_t* out) const {
  SEER_CHECK(begin >= 0 && count >= 0 && begin < size(), "token ", begin, " of ", size(),
             " asked for");
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), begin);
  for (auto i = static_cast<size_t>(after - begins_.begin()) - 1; count > 0; ++i) {
    if (i == order_.size()) i = 0, begin = 0;
    const int64_t text_begin = begins_[i] + (bos_ >= 0 ? 1 : 0), text_end = begins_[i + 1] - 1;
    if (begin < text_begin) {
      *out++ = bos_;
      ++begin, --count;
    }
    const int64_t some = std::min(count, text_end - begin);
    if (some > 0) {
      const int64_t first = file_->offsets()[static_cast<size_t>(order_[i])];
      file_->copy(first + begin - text_begin, some, out);
      out += some, begin += some, count -= some;
    }
    if (count > 0) {
      *out++ = eos_;
      ++begin, --count;
    }
  }
}

nlohmann::json Mixture::identity() const {
  auto json = nlohmann::json::array();
  for (size_t i = 0; i < streams.size(); ++i) {
    const TokenFile& file = streams[i].file();
    json.push_back({{"source", file.source()},
                    {"weight", weights[i]},
                    {"tokens", file.num_tokens()},
                    {"hash", file.hash()}});
    // Only where there are some, so that the settings of runs without any stay what they were.
    if (file.skipped().count > 0) json.back()["skipped_documents"] = file.skipped().count;
  }
  return json;
}

int64_t Mixture::skipped_documents() const {
  int64_t count = 0;
  for (const TokenStream& stream : streams) count += stream.file().skipped().count;
  return count;
}

Mixture single_mixture(std::shared_ptr<const TokenFile> file, const io::Tokenizer& tokenizer) {
  Mixture mixture;
  mixture.streams.emplace_back(std::move(file), tokenizer);
  mixture.weights.push_back(1);
  mixture.bos = tokenizer.bos_id().value_or(-1);
  return mixture;
}

Mixture open_mixture(const std::vector<std::filesystem::path>& files,
                     const std::vector<double>& weights, const DataSettings& settings,
                     const io::Tokenizer& tokenizer, const std::filesystem::path& tokenizer_folder,
                     int64_t vocab_size) {
  SEER_CHECK(!files.empty(), "no training text is given: name at least one file");
  SEER_CHECK(files.size() <= 255, files.size(), " training files, at most 255: join some");
  Mixture mixture;
  double sum = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::filesystem::path& path = files[i];
    const double weight = weights.empty() ? 1 : weights.at(i);
    SEER_CHECK(weight >= 0, "weight ", weight, " of ", path.string(), ", want 0 or more");
    sum += weight;
    if (weight == 0) continue;
    auto file = open_tokens(path, tokenizer, tokenizer_folder, settings.cache, settings.threads,
                            settings.show_progress);
    check_vocabulary(path, *file, tokenizer, vocab_size);
    if (settings.show_progress) report_skipped(path, *file);
    mixture.streams.emplace_back(std::move(file), tokenizer);
    mixture.weights.push_back(weight);
  }
  SEER_CHECK(sum > 0, "the weights of all training files are 0: give one more than 0");
  for (double& weight : mixture.weights) weight /= sum;
  mixture.bos = tokenizer.bos_id().value_or(-1);
  return mixture;
}

void RandomWindows::window(uint64_t index, int64_t length, int32_t* out) const {
  Random random(seed_, stream_of(kRandomWindow, index));
  double at = random.uniform();
  size_t i = 0;
  while (i + 1 < mixture_.streams.size() && at >= mixture_.weights[i]) at -= mixture_.weights[i++];
  const TokenStream& stream = mixture_.streams[i];
  if (mixture_.bos >= 0) {
    *out++ = mixture_.bos;
    --length;
  }
  if (stream.size() < length) too_short(stream, length);
  const auto places = static_cast<uint64_t>(stream.size() - length + 1);
  stream.copy(static_cast<int64_t>(random.below(places)), length, out);
}

PackedWindows::PackedWindows(const Mixture& mixture, uint64_t seed, int64_t length)
    : mixture_(mixture),
      seed_(seed),
      length_(length - (mixture.bos >= 0 ? 1 : 0)),
      epochs_(mixture.streams.size()),
      given_(mixture.streams.size(), 0) {
  SEER_CHECK(length >= 2, "windows of ", length, " tokens, want 2 or more");
  for (const TokenStream& stream : mixture.streams) {
    if (stream.size() < length_) too_short(stream, length);
  }
}

std::pair<size_t, uint64_t> PackedWindows::source(uint64_t index) {
  while (sources_.size() <= index) {
    // The stream that is furthest behind its share.
    size_t next = 0;
    double most = -1;
    for (size_t i = 0; i < given_.size(); ++i) {
      const double behind = mixture_.weights[i] * static_cast<double>(sources_.size() + 1) -
                            static_cast<double>(given_[i]);
      if (behind > most) most = behind, next = i;
    }
    sources_.emplace_back(static_cast<uint8_t>(next), given_[next]++);
  }
  return sources_[index];
}

void PackedWindows::window(uint64_t index, int32_t* out) {
  const auto [which, nth] = source(index);
  const TokenStream& stream = mixture_.streams[which];
  const auto windows = static_cast<uint64_t>(stream.size() / length_);
  const uint64_t number = nth / windows;
  auto& epoch = epochs_[which];
  if (!epoch || epoch->number != number) {
    const uint64_t seed = mix64(seed_ + which);
    Random random(seed, stream_of(kWindowOrder, number));
    const auto begin = static_cast<int64_t>(random.below(static_cast<uint64_t>(stream.size())));
    epoch = std::make_unique<Epoch>(Epoch{number, stream.shuffled(seed, number), begin,
                                          permutation(static_cast<int64_t>(windows), random)});
  }
  if (mixture_.bos >= 0) *out++ = mixture_.bos;
  const int64_t at = epoch->begin + epoch->order[nth % windows] * length_;
  epoch->stream.copy(at % stream.size(), length_, out);
}

}  // namespace seer::train
