#include "seer/train/ranks/round.h"

#include <random>
#include <thread>
#include <vector>

#include "seer/base/error.h"

namespace seer::train {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPause{20};

// Of this start of this process, not of a run's results.
std::string fresh_name() {
  std::random_device random;
  return message(random(), "-", random());
}

std::string key(const char* what, const std::string& of) {
  return message("seer/", what, "/", of);
}

std::string wait_for(c10d::Store& store, const std::string& key, Clock::time_point end) {
  while (!store.check({key})) {
    if (Clock::now() > end) return "";
    std::this_thread::sleep_for(kPause);
  }
  return store.get_to_str(key);
}

// Answers each rank's latest greeting until all ranks have taken an answer. A greeting that an earlier
// process left is answered, too, but nobody takes that answer.
std::string lead(c10d::Store& store, int size, Clock::time_point end) {
  const std::string round = fresh_name();
  std::vector<std::string> answered(static_cast<size_t>(size));
  std::string missing;
  do {
    missing.clear();
    for (int i = 1; i < size; ++i) {
      if (store.check({key("taken", message(round, "/", i))})) continue;
      missing += message(missing.empty() ? "" : ", ", i);
      const std::string hello = key("hello", std::to_string(i));
      if (!store.check({hello})) continue;
      const std::string name = store.get_to_str(hello);
      if (name == answered[static_cast<size_t>(i)]) continue;
      store.set(key("round", name), round);
      answered[static_cast<size_t>(i)] = name;
    }
    if (missing.empty()) {
      store.set(key("complete", round), "1");
      return round;
    }
    std::this_thread::sleep_for(kPause);
  } while (Clock::now() < end);
  fail("rank 0 of ", size, ": no sign of rank ", missing, "; start all ", size,
       " processes, with the same MASTER_ADDR and MASTER_PORT");
}

std::string follow(c10d::Store& store, int rank, int size, Clock::time_point end) {
  const std::string name = fresh_name();
  store.set(key("hello", std::to_string(rank)), name);
  const std::string round = wait_for(store, key("round", name), end);
  if (!round.empty()) {
    store.set(key("taken", message(round, "/", rank)), "1");
    if (!wait_for(store, key("complete", round), end).empty()) return round;
  }
  fail("rank ", rank, " of ", size, ": ",
       round.empty() ? "no sign of rank 0" : "not all processes have come", "; start all ", size,
       " processes, with the same MASTER_ADDR and MASTER_PORT");
}

}  // namespace

std::string agree_on_round(c10d::Store& store, int rank, int size,
                           std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  return "seer/" + (rank == 0 ? lead(store, size, end) : follow(store, rank, size, end));
}

}  // namespace seer::train
