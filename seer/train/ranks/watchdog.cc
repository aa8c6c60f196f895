#include "seer/train/ranks/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>

namespace seer::train {
namespace {

constexpr unsigned kLastWordsSeconds = 5;

}  // namespace

bool sleep_unless(const std::stop_token& stop, std::chrono::milliseconds time) {
  std::mutex own;
  std::condition_variable_any asleep;
  std::unique_lock lock(own);
  asleep.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

Watchdog::Watchdog(std::chrono::milliseconds step) : step_(step) {
  thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

Watchdog::~Watchdog() {
  thread_.request_stop();
  thread_.join();
}

void Watchdog::expect(std::chrono::milliseconds limit, const std::string& error) {
  const std::scoped_lock lock(mutex_);
  limit_ = std::max<int64_t>(1, limit / step_);
  error_ = error;
  steps_ = 0;
}

void Watchdog::work(const std::stop_token& stop) {
  while (sleep_unless(stop, step_)) {
    const std::scoped_lock lock(mutex_);
    if (++steps_ > limit_ && limit_ > 0) end_process(error_);
  }
}

void Watchdog::end_process(const std::string& error) {
  // The reader of stderr may hang, too.
  alarm(kLastWordsSeconds);
  std::fprintf(stderr, "seer: error: %s\n", error.c_str());
  std::fflush(nullptr);
  std::_Exit(1);
}

}  // namespace seer::train
