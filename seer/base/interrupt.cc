#include "seer/base/interrupt.h"

#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace seer {
namespace {

volatile sig_atomic_t noted = 0;
double noted_at = 0, same = 0;  // seconds
int guards = 0;
bool is_watched = false;  // standard error is a terminal

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void note(int signal) {
  if (noted != 0) {
    if (now() - noted_at < same) return;
    ::signal(signal, SIG_DFL);
    ::raise(signal);  // delivered when this handler returns
    return;
  }
  noted_at = now();
  noted = signal;
  if (!is_watched) return;
  constexpr char kAnswer[] = "\nseer: stopping where no work is lost; once more stops at once\n";
  const int before = errno;
  if (::write(STDERR_FILENO, kAnswer, sizeof kAnswer - 1) < 0) errno = before;
}

}  // namespace

InterruptGuard::InterruptGuard(double same_seconds) {
  if (guards++ > 0) return;
  noted = 0;
  same = same_seconds;
  is_watched = ::isatty(STDERR_FILENO) == 1;
  struct sigaction action{};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  if (--guards > 0) return;
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
}

int InterruptGuard::signal() const {
  return noted;
}

void InterruptGuard::answer(const std::string& text) const {
  if (noted != 0 && guards == 1) throw Interrupted(noted, text);
}

}  // namespace seer
