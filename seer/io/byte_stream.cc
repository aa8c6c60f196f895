// Plain, gzip and Zstandard files as one stream of bytes, by the streaming interfaces of zlib and
// libzstd.
#include "seer/io/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "seer/base/descriptor.h"
#include "seer/base/error.h"
#include "seer/base/limits.h"

namespace seer::io {

namespace {

constexpr size_t kBufferBytes = 1 << 18;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::filesystem::path& path)
      : path_(path),
        // Opening a pipe must not wait for somebody who writes into it.
        file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)),
        buffer_(kBufferBytes) {
    if (!file_.is_open()) fail_reading();
    struct stat info{};
    if (::fstat(file_.fd(), &info) != 0) fail_reading();
    SEER_CHECK(!S_ISDIR(info.st_mode), path.string(), " is a folder: name the files in it");
    SEER_CHECK(S_ISREG(info.st_mode), path.string(),
               " is a pipe or a device, want a file: write its text into one");
    SEER_CHECK(info.st_size > 0, path.string(), " is empty");
    size_ = static_cast<uint64_t>(info.st_size);
  }
  uint64_t size() const { return size_; }

  std::string_view next() override {
    for (;;) {
      const ssize_t count = ::read(file_.fd(), buffer_.data(), buffer_.size());
      if (count >= 0) return {buffer_.data(), static_cast<size_t>(count)};
      if (errno != EINTR) fail_reading();
    }
  }

 private:
  [[noreturn]] void fail_reading() const {
    fail("cannot read ", path_.string(), ": ", std::strerror(errno));
  }

  std::filesystem::path path_;
  Descriptor file_;
  uint64_t size_ = 0;
  std::vector<char> buffer_;
};

// The packed bytes, a piece at a time; the first piece is checked.
class PackedBytes {
 public:
  PackedBytes(const std::filesystem::path& path, Packing packing) : file_(path) {
    piece_ = file_.next();
    check_head(path, piece_, packing);
    is_first_ = true;
  }
  std::string_view next() {
    if (!is_first_) return file_.next();
    is_first_ = false;
    return piece_;
  }
  uint64_t size() const { return file_.size(); }

 private:
  PlainStream file_;
  std::string_view piece_;
  bool is_first_;
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path)
      : path_(path),
        packed_(path, Packing::zstd),
        context_(ZSTD_createDCtx(), &ZSTD_freeDCtx),
        buffer_(ZSTD_DStreamOutSize()) {
    SEER_CHECK(context_, "out of memory while opening ", path.string());
    // Corpora packed with --long have windows of 128 MiB and more, which libzstd refuses unasked. A
    // window is memory: a file gets no more than four times what may be kept of its text.
    const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    const int window = std::bit_width(4 * limits::unpacked_bytes(packed_.size())) - 1;
    check(ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax,
                                 std::min(window, bounds.upperBound)));
  }

  std::string_view next() override {
    for (;;) {
      if (in_.pos == in_.size) {
        const std::string_view bytes = packed_.next();
        in_ = {bytes.data(), bytes.size(), 0};
      }
      const bool at_end = in_.size == 0;
      if (at_end && is_frame_done_) return {};
      ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
      const size_t rest = check(ZSTD_decompressStream(context_.get(), &out, &in_));
      is_frame_done_ = rest == 0;
      if (out.pos > 0) return {buffer_.data(), out.pos};
      SEER_CHECK(!at_end || is_frame_done_, path_.string(),
                 " is cut off: its last Zstandard frame is not complete; get the file again");
    }
  }

 private:
  size_t check(size_t result) const {
    if (!ZSTD_isError(result)) return result;
    const bool is_window = ZSTD_getErrorCode(result) == ZSTD_error_frameParameter_windowTooLarge;
    fail(path_.string(), " cannot be unpacked: ", ZSTD_getErrorName(result),
         is_window ? " for a file of its size; pack it without --long" : "; get the file again");
  }

  std::filesystem::path path_;
  PackedBytes packed_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  std::vector<char> buffer_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool is_frame_done_ = true;
};

// One or more members, as gzip, pigz and bgzip write them; zeros behind the last (tapes) are padding.
class GzipStream : public ByteStream {
 public:
  explicit GzipStream(const std::filesystem::path& path)
      : path_(path), packed_(path, Packing::gzip), buffer_(kBufferBytes) {
    constexpr int kGzipHeader = 16;
    SEER_CHECK(inflateInit2(&state_, MAX_WBITS + kGzipHeader) == Z_OK,
               "out of memory while opening ", path.string());
  }
  ~GzipStream() override { inflateEnd(&state_); }

  std::string_view next() override {
    while (is_buffer_full_ || has_input()) {
      if (is_member_done_) {
        if (*state_.next_in == 0) {
          only_zeros();
          return {};
        }
        inflateReset(&state_);
        is_member_done_ = false;
      }
      state_.next_out = buffer_.data();
      state_.avail_out = static_cast<uInt>(buffer_.size());
      const int result = inflate(&state_, Z_NO_FLUSH);
      SEER_CHECK(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, path_.string(),
                 " cannot be unpacked: ", state_.msg ? state_.msg : "it is damaged",
                 "; get the file again");
      is_member_done_ = result == Z_STREAM_END;
      is_buffer_full_ = state_.avail_out == 0 && !is_member_done_;  // zlib may hold more
      if (const size_t count = buffer_.size() - state_.avail_out; count > 0) {
        return {reinterpret_cast<const char*>(buffer_.data()), count};
      }
    }
    SEER_CHECK(is_member_done_, path_.string(),
               " is cut off: its last gzip member is not complete; get the file again");
    return {};
  }

 private:
  bool has_input() {
    if (state_.avail_in > 0) return true;
    const std::string_view bytes = packed_.next();
    // zlib does not change what it reads, though its type says so.
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    state_.avail_in = static_cast<uInt>(bytes.size());
    return !bytes.empty();
  }

  void only_zeros() {
    while (has_input()) {
      const auto* end = state_.next_in + state_.avail_in;
      SEER_CHECK(
          std::all_of(state_.next_in, const_cast<Bytef*>(end), [](Bytef b) { return b == 0; }),
          path_.string(),
          " cannot be unpacked: bytes follow its last gzip member; get the file again");
      state_.avail_in = 0;
    }
  }

  std::filesystem::path path_;
  PackedBytes packed_;
  std::vector<Bytef> buffer_;
  z_stream state_{};
  bool is_member_done_ = false, is_buffer_full_ = false;
};

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path, Packing packing) {
  if (packing == Packing::zstd) return std::make_unique<ZstdStream>(path);
  if (packing == Packing::gzip) return std::make_unique<GzipStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace seer::io
