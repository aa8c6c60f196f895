#pragma once
// Ctrl-C (SIGINT) and SIGTERM during work that can be saved.

#include <signal.h>

#include <array>

#include "seer/base/error.h"

namespace seer {

// Work was stopped by `signal` at a place from which it can go on, which the text says. The program
// ends with 128 + signal.
struct Interrupted : Error {
  Interrupted(int signal, const std::string& text) : Error(text), signal(signal) {}
  int signal;
};

// While an object of this class lives, the first of these signals is only noted (a terminal is told); a second one ends
// the process at once, unless it comes within `same_seconds`: a launcher passes on the Ctrl-C that
// its processes get from the terminal, too. Signals that are ignored (nohup) stay so. One that lives within
// another's life shares what that one noted. For one thread.
class InterruptGuard {
 public:
  explicit InterruptGuard(double same_seconds = 0);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  // The signal that came since then; 0: none.
  int signal() const;
  // At the end of work, when its results are saved: Interrupted if a signal came after the last look at signal(). Within the
  // life of another object, which then answers, nothing.
  void answer(const std::string& text) const;

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM};
  std::array<struct sigaction, kSignals.size()> before_;
};

}  // namespace seer
