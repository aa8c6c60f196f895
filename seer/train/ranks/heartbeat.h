#pragma once
// Signs of life of the processes that train together.

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "seer/train/ranks/watchdog.h"

namespace seer::train {

// All times follow from one: after which silence a process counts as gone.
struct Rhythm {
  explicit Rhythm(std::chrono::milliseconds limit)
      : limit(limit),
        beat(std::clamp(limit / 30, std::chrono::milliseconds(10), std::chrono::milliseconds(500))),
        silence(limit / 3),
        linger(4 * beat) {}
  std::chrono::milliseconds limit, beat;
  std::chrono::milliseconds silence;  // after which a process counts as gone, when asked
  std::chrono::milliseconds linger;   // in which others can read who is gone
};

// Which of `size` processes this is, and who serves their store.
struct Place {
  int rank, size;
  bool holds_store;
  std::string store_holder;  // as errors name it
  // What is said where processes are gone.
  std::string lost(const std::string& gone) const;
};

// Signals that this process is alive, and finds those that are not, on a connection of its own.
// When another process dies, this one ends with an error: a sum would wait for it forever (NCCL's
// always, Gloo's if a machine vanishes), and so would a wait for the GPU. When the store itself does
// not answer, no call on it returns: the watchdog, which does not use it, ends this process.
class Heartbeat {
 public:
  // From now on the store has to answer.
  Heartbeat(c10::intrusive_ptr<c10d::Store> store, Place place, Rhythm rhythm, Watchdog& watchdog);
  ~Heartbeat();
  // From now on the others have to beat. `prefix`: of this start of all of them.
  void join(const std::string& prefix);

  // "rank 1", "ranks 1, 3"; empty where all answer. Who died first: those that then left with an error
  // are silent, too.
  std::string gone();
  // To be called before this process leaves with that error: the holder of the store stays until the
  // others have read who is gone. Of several threads only the first reports it.
  void linger();

 private:
  struct Other {
    int64_t count = -1;
    int64_t looks = 0;  // since it has this count
  };

  c10::intrusive_ptr<c10d::Store> store_;
  const Place place_;
  const Rhythm rhythm_;
  Watchdog& watchdog_;
  std::atomic<bool> leaving_ = false, joined_ = false;
  std::mutex mutex_;  // of the store
  std::jthread beat_;

  void work(const std::stop_token& stop);
  void look_at(std::vector<Other>& others);  // ends this process where one is gone
  bool is_dead(int rank, Other& other);
  void wait_for_others();
  void end_process(const std::string& gone);
  // Who is gone, as the first process said that found it; empty: nobody has yet.
  std::string told();
  // Says it to the others, unless one was first; what is known then.
  std::string tell(const std::string& gone);
  // Beats of all; empty where the store is gone.
  std::vector<int64_t> counts();
};

}  // namespace seer::train
