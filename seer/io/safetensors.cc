#include "seer/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "seer/base/checksum.h"
#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/stand_in.h"

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace seer::io {
namespace {

using nlohmann::json;

constexpr const char* kMetadata = "__metadata__";
constexpr const char* kChecksum = "checksum";  // in the metadata
constexpr std::string_view kNoChecksum = "0000000000000000";

// Bytes of one element; 0 for a dtype that the format does not have.
size_t element_bytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, size_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
      {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8}};
  for (const auto& [name, bytes] : kSizes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// Bytes of a tensor, or no value where the product does not fit.
bool tensor_bytes(const std::vector<int64_t>& shape, size_t element, size_t* bytes) {
  size_t product = element;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(product, static_cast<size_t>(size), &product))
      return false;
  }
  *bytes = product;
  return true;
}

// A non-negative whole number that fits int64_t.
bool is_size(const json& value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

// Where the checksum's digits stand in a header; npos where it has none. Within strings quotes are
// escaped, so that this is the key itself.
size_t checksum_place(std::string_view header) {
  constexpr std::string_view kKey = "\"checksum\":\"";
  const size_t at = header.find(kKey);
  const bool has_room = at != header.npos && header.size() - at >= kKey.size() + kNoChecksum.size();
  return has_room ? at + kKey.size() : header.npos;
}

template <class... Args>
[[noreturn]] void bad_file(const std::string& path, const Args&... args) {
  const std::string reason = message(args...);
  throw BadSafetensors(message(path, " is not a valid safetensors file: ", reason,
                               "; fetch or write the file again"),
                       reason);
}

// One header, read with every check against the file that it stands in.
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, const MappedFile& file)
      : path_(path.string()), file_(file) {}

  void read(std::map<std::string, TensorRecord>* tensors,
            std::map<std::string, std::string>* metadata) {
    const json header = parse();
    for (const auto& [name, entry] : header.items()) {
      if (name == kMetadata) {
        read_metadata(entry, metadata);
      } else {
        tensors->emplace(name, read_tensor(name, entry));
      }
    }
    check_cover(*tensors);
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(const Args&... args) const {
    bad_file(path_, args...);
  }

  json parse() {
    const std::string_view front(reinterpret_cast<const char*>(file_.data()),
                                 std::min<size_t>(file_.size(), 200));
    if (const std::string other = stand_in(front); !other.empty()) {
      throw BadSafetensors(path_ + " " + other, other);
    }
    if (file_.size() < 8) bad("it has ", file_.size(), " bytes, want at least 8");
    uint64_t length = 0;
    std::memcpy(&length, file_.data(), 8);
    if (length > limits::kSafetensorsHeader)
      bad("its header has ", length, " bytes, at most ", limits::kSafetensorsHeader);
    if (length > file_.size() - 8) {
      bad("truncated: its header has ", length, " bytes, the file ", file_.size());
    }
    data_ = file_.data() + 8 + length;
    data_bytes_ = file_.size() - 8 - length;
    const auto* text = reinterpret_cast<const char*>(file_.data()) + 8;
    std::set<std::string> names;
    std::string twice;
    // The parser keeps the last of two equal names without a word; the format forbids them.
    const auto watch = [&](int depth, json::parse_event_t event, json& value) {
      if (event == json::parse_event_t::key && depth == 1 &&
          !names.insert(value.get<std::string>()).second) {
        twice = value.get<std::string>();
      }
      return true;
    };
    std::string problem;
    const json header = parse_json({text, length}, &problem, watch);
    if (header.is_discarded()) bad("its header ", problem);
    if (!header.is_object()) bad("its header is not a JSON object");
    if (!twice.empty()) bad("its header names ", shown(twice), " twice");
    return header;
  }

  void read_metadata(const json& entry, std::map<std::string, std::string>* metadata) const {
    if (!entry.is_object()) bad(kMetadata, " is not an object of strings");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) bad(kMetadata, " has ", shown(key), ", which is not a string");
      metadata->emplace(key, value.get<std::string>());
    }
  }

  TensorRecord read_tensor(const std::string& name, const json& entry) const {
    const auto has = [&](const char* key, json::value_t type) {
      return entry.is_object() && entry.contains(key) && entry[key].type() == type;
    };
    if (!has("dtype", json::value_t::string)) bad("tensor ", shown(name), " has no dtype");
    if (!has("shape", json::value_t::array)) bad("tensor ", shown(name), " has no shape");
    if (!has("data_offsets", json::value_t::array) || entry["data_offsets"].size() != 2) {
      bad("tensor ", shown(name), " has no pair of data_offsets");
    }
    TensorRecord record;
    record.dtype = entry["dtype"].get<std::string>();
    const size_t element = element_bytes(record.dtype);
    if (element == 0) bad("tensor ", shown(name), " has the unknown dtype ", shown(record.dtype));
    for (const json& size : entry["shape"]) {
      if (!is_size(size)) bad("tensor ", shown(name), " has a size that is not a whole number");
      record.shape.push_back(size.get<int64_t>());
    }
    const json& offsets = entry["data_offsets"];
    if (!is_size(offsets[0]) || !is_size(offsets[1])) {
      bad("tensor ", shown(name), " has an offset that is not a whole number");
    }
    const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
    if (begin > end || end > data_bytes_) {
      bad("tensor ", shown(name), " is at bytes ", begin, " to ", end, " of ", data_bytes_,
          " (is the file truncated?)");
    }
    size_t bytes = 0;
    if (!tensor_bytes(record.shape, element, &bytes) || bytes != end - begin) {
      bad("tensor ", shown(name), " has ", end - begin, " bytes, not what its shape and ",
          record.dtype, " need");
    }
    record.data = data_ + begin;
    record.bytes = bytes;
    return record;
  }

  // The format wants every byte of the data to belong to exactly one tensor.
  void check_cover(const std::map<std::string, TensorRecord>& tensors) const {
    std::vector<const std::pair<const std::string, TensorRecord>*> order;
    for (const auto& item : tensors) order.push_back(&item);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::pair(a->second.data, a->second.bytes) <
             std::pair(b->second.data, b->second.bytes);
    });
    const std::byte* at = data_;
    for (const auto* item : order) {
      const TensorRecord& record = item->second;
      if (record.data < at) bad("tensor ", shown(item->first), " overlaps another one");
      if (record.data > at) {
        bad("a hole of ", record.data - at, " bytes lies before tensor ", shown(item->first));
      }
      at += record.bytes;
    }
    if (at != data_ + data_bytes_) {
      bad(data_ + data_bytes_ - at, " bytes at its end belong to no tensor");
    }
  }

  std::string path_;
  const MappedFile& file_;
  const std::byte* data_ = nullptr;
  size_t data_bytes_ = 0;
};

std::string header_text(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    size_t bytes = 0;
    const size_t element = element_bytes(tensor.dtype);
    SEER_CHECK(element > 0, "cannot write ", path.string(), ": tensor ", shown(name),
               " has the unknown dtype ", shown(tensor.dtype));
    SEER_CHECK(tensor_bytes(tensor.shape, element, &bytes) && bytes == tensor.bytes,
               "cannot write ", path.string(), ": tensor ", shown(name), " has ", tensor.bytes,
               " bytes, not what its shape and ", tensor.dtype, " need");
    SEER_CHECK(name != kMetadata && !header.contains(name), "cannot write ", path.string(),
               ": the name ", shown(name), " is taken");
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail("cannot write ", path.string(), ": a tensor's name or a metadata entry is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data begins at a multiple of 8
  return text;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const auto file = std::make_shared<MappedFile>(path);
  HeaderReader(path, *file).read(&tensors_, &metadata_);
  mapping_ = file;
}

const TensorRecord& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(path_.string(), " has no tensor ", shown(name));
  return found->second;
}

void SafetensorsFile::check_sum() const {
  const auto& file = *std::static_pointer_cast<const MappedFile>(mapping_);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  std::string header(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
  const size_t at = checksum_place(header);
  if (at == header.npos) bad_file(path_.string(), "it has no checksum");
  const std::string written = header.substr(at, kNoChecksum.size());
  header.replace(at, kNoChecksum.size(), kNoChecksum);
  Checksum checksum;
  checksum.add(&length, sizeof length);
  checksum.add(header.data(), header.size());
  const size_t begin = sizeof length + header.size();
  checksum.add(file.data() + begin, file.size() - begin);
  if (checksum.hex() != written) bad_file(path_.string(), "its bytes do not have its checksum");
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata, bool with_checksum,
                       const BytesOf& bytes_of) {
  auto all = metadata;
  if (with_checksum) all[kChecksum] = kNoChecksum;
  const std::string header = header_text(path, tensors, all);
  write_file_atomic(path, [&](const Sink& sink) {
    Checksum checksum;
    const auto put = [&](const void* bytes, size_t size) {
      if (with_checksum) checksum.add(bytes, size);
      sink(bytes, size);
    };
    const uint64_t length = header.size();
    put(&length, sizeof length);
    put(header.data(), header.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorRecord& record = tensors[i].tensor;
      put(bytes_of ? bytes_of(i) : record.data, record.bytes);
    }
    if (with_checksum) sink.replace(sizeof length + checksum_place(header), checksum.hex());
  });
}

}  // namespace seer::io
