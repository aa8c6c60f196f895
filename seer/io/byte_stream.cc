// Plain and Zstandard files as one stream of bytes; libzstd's streaming interface.
#include "seer/io/byte_stream.h"

#include <zstd.h>

#include <cerrno>
#include <cstring>

#include "seer/base/error.h"

namespace seer::io {

namespace {

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::filesystem::path& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb"), &std::fclose), buffer_(1 << 18) {
    SEER_CHECK(file_, "cannot read ", path.string(), ": ", std::strerror(errno));
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    SEER_CHECK(error || size > 0, path.string(), " is empty");
  }

  std::string_view next() override {
    const size_t count = std::fread(buffer_.data(), 1, buffer_.size(), file_.get());
    if (count < buffer_.size() && std::ferror(file_.get())) {
      fail("cannot read ", path_.string(), ": ", std::strerror(errno));
    }
    return {buffer_.data(), count};
  }

 private:
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::vector<char> buffer_;
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path)
      : path_(path),
        packed_(path),
        context_(ZSTD_createDCtx(), &ZSTD_freeDCtx),
        buffer_(ZSTD_DStreamOutSize()) {
    SEER_CHECK(context_, "out of memory while opening ", path.string());
    // Corpora packed with --long have windows of 128 MiB and more, which libzstd refuses unasked.
    const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    check(ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, bounds.upperBound));
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
                 " is cut off: its last Zstandard frame ", "is not complete; get the file again");
    }
  }

 private:
  size_t check(size_t result) const {
    SEER_CHECK(!ZSTD_isError(result), path_.string(),
               " cannot be unpacked: ", ZSTD_getErrorName(result));
    return result;
  }

  std::filesystem::path path_;
  PlainStream packed_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  std::vector<char> buffer_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool is_frame_done_ = true;
};

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path) {
  if (path.extension() == ".zst") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace seer::io
