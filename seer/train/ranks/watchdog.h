#pragma once
// Ends this process when a wait takes too long. Never blocks itself.

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>

namespace seer::train {

// Time is counted in the watchdog's own steps: where this process is stopped and goes on, or has no
// CPU, the others have not been silent.
class Watchdog {
 public:
  explicit Watchdog(std::chrono::milliseconds step);
  ~Watchdog();

  // From now on, sign() has to come each `limit`. Otherwise this process ends with this error.
  void expect(std::chrono::milliseconds limit, const std::string& error);
  // What is waited for has shown that it lives.
  void sign() { steps_ = 0; }

  // "seer: error: ...", then the end without destructors, which may block. Also if stderr is stuck.
  [[noreturn]] static void end_process(const std::string& error);

 private:
  const std::chrono::milliseconds step_;
  std::atomic<int64_t> steps_ = 0;  // without a sign
  std::mutex mutex_;                // of what is expected
  int64_t limit_ = 0;               // steps; 0: nothing is expected
  std::string error_;
  std::jthread thread_;

  void work(const std::stop_token& stop);
};

// False: to be stopped.
bool sleep_unless(const std::stop_token& stop, std::chrono::milliseconds time);

}  // namespace seer::train
