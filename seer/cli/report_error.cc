#include "seer/cli/report_error.h"

#include <c10/util/Exception.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/models/memory.h"

namespace seer::cli {
namespace {

constexpr const char* kMemory =
    "the memory is full: choose a shorter length, fewer sequences at once, a smaller --chunk, a "
    "smaller model or --dtype bf16";
constexpr const char* kGpuMemory =
    "the GPU's memory is full: choose fewer or shorter sequences at once, or --stream";

bool is_debug() {
  const char* level = std::getenv("SEER_LOG");
  return level != nullptr && std::strcmp(level, "debug") == 0;
}

// An unforeseen error: where its message comes from, and how to see more.
std::string internal(const std::string& source, const std::string& text) {
  return "internal error" + source + ": " + shown(text, 300) +
         (is_debug() ? "" : "; SEER_LOG=debug shows more");
}

// Messages of the operations name the operation first, "seer::block_select: ...".
constexpr std::string_view kOfOperation = "seer::";

std::string text_of(const c10::Error& error) {
  const std::string text = first_line(error.what_without_backtrace());
  const auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (text.starts_with(kOfOperation)) return text.substr(kOfOperation.size());
  if (const auto full = models::full_memory(error)) {
    return *full == c10::kCPU ? kMemory : message(kGpuMemory, " (", text, ")");
  }
  if (has("CUDA error") || has("CUDA driver")) {
    return "the GPU reports " + shown(text, 300) + ": see nvidia-smi, or add --device cpu";
  }
  return internal(" in torch", text);
}

int print(const std::string& text, const char* all, int status) {
  // One call: lines of several processes do not mix.
  std::fprintf(stderr, "seer: error: %s\n", one_line(text, limits::kMessageLength).c_str());
  if (is_debug() && all != nullptr) {
    for (std::string_view rest = all; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      std::fprintf(stderr, "%s\n", one_line(rest.substr(0, end), limits::kMessageLength).c_str());
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return status;
}

// A message of several lines as one.
std::string joined(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos;) text.replace(at, 1, " ");
  return text;
}

// Where the stream was closed when the program began.
void open_on_null(int fd, int mode) {
  if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) static_cast<void>(::open("/dev/null", mode));
}

}  // namespace

int report_error() {
  try {
    throw;
  } catch (const Interrupted& e) {
    const std::string text = e.what();
    if (!text.empty()) {
      std::fprintf(stderr, "seer: %s\n", one_line(text, limits::kMessageLength).c_str());
    }
    return 128 + e.signal;
  } catch (const UsageError& e) {
    return print(joined(e.what()), nullptr, 2);
  } catch (const Error& e) {
    return print(joined(e.what()), nullptr, 1);
  } catch (const c10::Error& e) {
    return print(text_of(e), e.what(), 1);
  } catch (const std::bad_alloc&) {
    return print(kMemory, nullptr, 1);
  } catch (const std::filesystem::filesystem_error& e) {
    std::string paths = e.path1().string();
    if (!e.path2().empty()) paths += " and " + e.path2().string();
    return print(paths + ": " + e.code().message(), e.what(), 1);
  } catch (const std::exception& e) {
    return print(internal("", e.what()), e.what(), 1);
  } catch (...) {
    return print(internal("", "an exception of an unknown type"), nullptr, 1);
  }
}

void report_errors_of_threads() {
  std::set_terminate([] {
    if (std::current_exception() == nullptr) std::abort();
    std::_Exit(report_error());
  });
}

void open_standard_streams() {
  // In the order of their numbers, as open() takes the lowest. For the wrong direction, so that
  // reading and writing fail as on a closed stream; only errors have nowhere to go.
  open_on_null(0, O_WRONLY);
  open_on_null(1, O_RDONLY);
  open_on_null(2, O_WRONLY);
}

void check_standard_output() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  fail("cannot write to standard output: ", errno == EBADF ? "it is closed"
                                            : errno == 0   ? "the results did not arrive"
                                                           : std::strerror(errno));
}

}  // namespace seer::cli
