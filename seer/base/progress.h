#pragma once
// Progress of long work on standard error: one line rewritten in place on a terminal, a plain line
// every few seconds elsewhere (a log).

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace seer {

// "3 s", "4 min 05 s", "2 h 07 min", "17 d 03 h".
std::string duration_text(double seconds);
// A count with a unit letter: "950", "12.3 k", "1.06 M".
std::string count_text(double count);

// A line that may hold strings from outside, fit for a terminal.
void print_line(const std::string& line, std::FILE* out = stderr);

// Counts steps of `total` (0: unknown). `first` were done before (a resumed run): they do not count
// for the time left. Prints nothing where `shown` is false.
class Progress {
 public:
  Progress(std::string label, int64_t total, int64_t first = 0, bool shown = true,
           std::FILE* out = stderr);
  // Ends the line, so that what follows begins on its own.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `status` is shown behind the counts, e.g. "loss 3.21"; it stays until the next one.
  void update(int64_t done, const std::string& status = "");
  // Within a step that takes long: `share` of it is done (0: not known). `what` is shown until the
  // next update().
  void part(double share, const std::string& what);
  void advance(int64_t steps = 1) { update(done_ + steps, status_); }
  // Takes the line from a terminal that something else is about to write on; it comes back with the next
  // step.
  void clear();
  // A line of its own (a warning, a result); the progress line goes on below it.
  void note(const std::string& line);

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(double seconds) const;
  void print(bool last);

  std::string label_, status_, part_;
  double share_ = 0;  // of the present step
  int64_t total_, first_, done_, printed_done_ = -1;
  bool shown_, on_terminal_, line_is_open_ = false;
  std::FILE* out_;
  Clock::time_point begin_, printed_, updated_;
};

}  // namespace seer
