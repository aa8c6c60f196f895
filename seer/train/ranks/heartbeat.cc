#include "seer/train/ranks/heartbeat.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <exception>

#include "seer/base/error.h"

namespace seer::train {
namespace {

using Clock = std::chrono::steady_clock;

std::string key(const char* what, int rank) {
  return message(what, "/", rank);
}

}  // namespace

std::string Place::lost(const std::string& gone) const {
  return message("rank ", rank, " of ", size, ": ", gone,
                 " does not answer any more; start all of them again, they go on from the last "
                 "checkpoint");
}

Heartbeat::Heartbeat(c10::intrusive_ptr<c10d::Store> store, Place place, Rhythm rhythm,
                     Watchdog& watchdog)
    : store_(std::move(store)), place_(std::move(place)), rhythm_(rhythm), watchdog_(watchdog) {
  watchdog_.expect(rhythm_.limit, place_.lost(place_.store_holder));
  beat_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

Heartbeat::~Heartbeat() {
  beat_.request_stop();
  beat_.join();
  if (std::uncaught_exceptions() > 0) return;  // the others shall find it missing
  try {
    // An orderly end. Not add(), which waits for an answer: the holder of the store may read this and
    // leave before it answers, and c10d complains.
    store_->set(key("left", place_.rank), "1");
    if (place_.rank == 0) wait_for_others();  // it may hold the store
  } catch (const std::exception&) {           // the holder of the store has died
  }
}

void Heartbeat::join(const std::string& prefix) {
  const std::scoped_lock lock(mutex_);
  store_ = c10::make_intrusive<c10d::PrefixStore>(prefix, store_);
  joined_ = true;
}

std::string Heartbeat::gone() {
  const std::vector<int64_t> before = counts();
  if (before.empty()) return place_.store_holder;
  for (auto end = Clock::now() + rhythm_.silence; Clock::now() < end;) {
    std::this_thread::sleep_for(rhythm_.beat / 2);
    const std::string known = told();
    if (!known.empty()) return known;
  }
  const std::vector<int64_t> after = counts();
  if (after.empty()) return place_.store_holder;
  std::string ranks;
  int found = 0;
  for (int i = 0; i < place_.size; ++i) {
    if (after[static_cast<size_t>(i)] != before[static_cast<size_t>(i)]) continue;
    ranks += (found++ ? ", " : "") + std::to_string(i);
  }
  return ranks.empty() ? "" : tell((found > 1 ? "ranks " : "rank ") + ranks);
}

void Heartbeat::linger() {
  const bool is_second = leaving_.exchange(true);
  const bool is_read = place_.size > 2 && place_.holds_store;
  if (is_read || is_second) std::this_thread::sleep_for((is_second ? 2 : 1) * rhythm_.linger);
}

void Heartbeat::wait_for_others() {
  const auto end = Clock::now() + rhythm_.silence;
  for (int i = 1; i < place_.size; ++i) {
    while (store_->add(key("left", i), 0) == 0 && Clock::now() < end) {
      watchdog_.sign();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
}

void Heartbeat::work(const std::stop_token& stop) {
  std::vector<Other> others(static_cast<size_t>(place_.size));
  do {
    try {
      if (joined_) {
        {
          const std::scoped_lock lock(mutex_);
          store_->add(key("alive", place_.rank), 1);
        }
        look_at(others);
      } else {
        const std::scoped_lock lock(mutex_);
        store_->check({"alive"});
      }
      watchdog_.sign();
    } catch (const std::exception&) {
      // The store is gone. In a moment this process ends by itself, or the watchdog ends it.
      return;
    }
  } while (sleep_unless(stop, rhythm_.beat));
}

void Heartbeat::look_at(std::vector<Other>& others) {
  const std::string known = told();
  if (!known.empty()) return end_process(known);
  for (int i = 0; i < place_.size; ++i) {
    if (is_dead(i, others[static_cast<size_t>(i)])) {
      return end_process(tell(message("rank ", i)));
    }
  }
}

bool Heartbeat::is_dead(int rank, Other& other) {
  const std::scoped_lock lock(mutex_);
  const int64_t count = store_->add(key("alive", rank), 0);
  if (count != other.count) other = {count, 0};
  return ++other.looks * rhythm_.beat > rhythm_.limit && store_->add(key("left", rank), 0) == 0;
}

void Heartbeat::end_process(const std::string& gone) {
  if (leaving_) return;  // the main thread has found it, too, and says so
  linger();
  Watchdog::end_process(place_.lost(gone));
}

std::string Heartbeat::told() {
  try {
    const std::scoped_lock lock(mutex_);
    return store_->check({"gone"}) ? store_->get_to_str("gone") : "";
  } catch (const std::exception&) {
    return place_.store_holder;
  }
}

std::string Heartbeat::tell(const std::string& gone) {
  try {
    const std::scoped_lock lock(mutex_);
    return store_->compareSet("gone", std::string(), gone);
  } catch (const std::exception&) {
    return gone;
  }
}

std::vector<int64_t> Heartbeat::counts() {
  std::vector<int64_t> counts;
  try {
    const std::scoped_lock lock(mutex_);
    for (int i = 0; i < place_.size; ++i) counts.push_back(store_->add(key("alive", i), 0));
  } catch (const std::exception&) {
    counts.clear();
  }
  return counts;
}

}  // namespace seer::train
