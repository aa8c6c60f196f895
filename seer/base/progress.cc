#include "seer/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "seer/base/limits.h"
#include "seer/base/shown.h"

namespace seer {
namespace {

constexpr double kTerminalSeconds = 0.1, kLogSeconds = 10;
constexpr double kLongStep = 2;  // seconds, from which on parts of a step are shown

int terminal_width(std::FILE* out) {
  winsize size{};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[64];
  std::snprintf(text, sizeof(text), pattern, args...);
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto s = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  if (s < 60) return format("%lld s", s);
  if (s < 3600) return format("%lld min %02lld s", s / 60, s % 60);
  if (s < 48 * 3600) return format("%lld h %02lld min", s / 3600, s / 60 % 60);
  return format("%lld d %02lld h", s / 86400, s / 3600 % 24);
}

std::string count_text(double count) {
  if (count < 1e3) return format("%.0f", count);
  const bool is_million = count >= 999.5e3;
  const double scaled = count / (is_million ? 1e6 : 1e3);
  const char* pattern = scaled < 9.995 ? "%.2f %c" : scaled < 99.95 ? "%.1f %c" : "%.0f %c";
  return format(pattern, scaled, is_million ? 'M' : 'k');
}

void print_line(const std::string& line, std::FILE* out) {
  std::fprintf(out, "%s\n", one_line(line, limits::kMessageLength).c_str());
}

Progress::Progress(std::string label, int64_t total, int64_t first, bool shown, std::FILE* out)
    : label_(std::move(label)),
      total_(total),
      first_(first),
      done_(first),
      shown_(shown),
      on_terminal_(::isatty(::fileno(out)) == 1),
      out_(out),
      begin_(Clock::now()),
      printed_(begin_),
      updated_(begin_) {}

Progress::~Progress() {
  // A log that has this line already does not need it twice.
  if (done_ > first_ && (on_terminal_ || printed_done_ != done_)) print(true);
  if (line_is_open_) std::fputc('\n', out_);
}

std::string Progress::line(double seconds) const {
  std::string text = label_ + ": " + std::to_string(done_);
  if (total_ > 0) text.append("/").append(std::to_string(total_));
  for (const std::string& some : {status_, part_}) {
    if (!some.empty()) text.append(", ").append(some);
  }
  const double made = static_cast<double>(done_ - first_) + share_;
  if (total_ > 0 && made > 0 && done_ < total_) {
    const double left = static_cast<double>(total_ - done_) - share_;
    return text.append(", ").append(duration_text(seconds / made * left)).append(" left");
  }
  return text.append(", ").append(duration_text(seconds));
}

void Progress::print(bool last) {
  if (!shown_) return;
  const auto now = Clock::now();
  const std::chrono::duration<double> since = now - printed_;
  if (!last && since.count() < (on_terminal_ ? kTerminalSeconds : kLogSeconds)) return;
  printed_ = now;
  printed_done_ = done_;
  std::string text =
      one_line(line(std::chrono::duration<double>(now - begin_).count()), limits::kMessageLength);
  if (on_terminal_) {
    auto width = static_cast<size_t>(terminal_width(out_) - 1);
    if (text.size() > width) {
      while (width > 0 && (text[width] & 0xC0) == 0x80) --width;  // no part of a character
      text.resize(width);
    }
    std::fprintf(out_, "\r%s\x1b[K", text.c_str());
    line_is_open_ = true;
  } else {
    std::fprintf(out_, "%s\n", text.c_str());
  }
  std::fflush(out_);
}

void Progress::update(int64_t done, const std::string& status) {
  done_ = done;
  status_ = status;
  part_.clear();
  share_ = 0;
  updated_ = Clock::now();
  print(false);
}

void Progress::part(double share, const std::string& what) {
  const std::chrono::duration<double> since = Clock::now() - updated_;
  if (since.count() < kLongStep) return;
  part_ = what;
  share_ = share;
  print(false);
}

void Progress::clear() {
  if (!line_is_open_) return;
  std::fputs("\r\x1b[K", out_);
  std::fflush(out_);
  line_is_open_ = false;
}

void Progress::note(const std::string& line) {
  if (!shown_) return;
  clear();
  print_line(line, out_);
  std::fflush(out_);
}

}  // namespace seer
