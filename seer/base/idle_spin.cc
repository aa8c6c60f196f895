#include "seer/base/idle_spin.h"

#include <omp.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace seer {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr double kContended = 0.1;  // CPU seconds of waiting a second
constexpr double kCalm = 0.03;
constexpr double kCalmSeconds = 2;
constexpr std::chrono::milliseconds kPeriod{200};

// Seconds that the threads of this process have waited for a CPU; below 0: not known.
double seconds_waited() {
  double seconds = 0;
  bool known = false;
  std::error_code error;
  for (fs::directory_iterator at("/proc/self/task", error), end; !error && at != end;
       at.increment(error)) {
    std::ifstream file(at->path() / "schedstat");  // a thread may be gone by now
    double ran_ns = 0, waited_ns = 0;
    if (!(file >> ran_ns >> waited_ns)) continue;
    known = true;
    seconds += waited_ns * 1e-9;
  }
  return known ? seconds : -1;
}

// A thread that does something every `kPeriod` until the process ends.
class Watcher {
 public:
  Watcher() : thread_([this] { watch(); }) {}
  ~Watcher() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    ended_.notify_all();
    thread_.join();
  }

 private:
  void watch() {
    Contention contention;
    std::unique_ptr<ShortSpin> short_spin;
    double before = seconds_waited();
    auto then = steady_clock::now();
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, kPeriod, [this] { return done_; })) {
      const double waited = seconds_waited();
      const auto now = steady_clock::now();
      // Threads that end take their seconds with them: the sum may fall.
      if (!contention.update(waited - before, now - then)) {
        short_spin.reset();
      } else if (!short_spin) {
        short_spin = std::make_unique<ShortSpin>();
      }
      before = waited;
      then = now;
    }
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace

bool Contention::update(double waited, std::chrono::duration<double> span) {
  const double share = waited / span.count();
  calm_s_ = share < kCalm ? calm_s_ + span.count() : 0;
  contended_ = share > kContended || (contended_ && calm_s_ < kCalmSeconds);
  return contended_;
}

// libgomp spins for a short time only (GOMP_SPINCOUNT's 1,000 turns instead of 300,000) while the
// process has more OpenMP threads than CPUs. This team brings their number there, and sleeps.
struct ShortSpin::Team {
  std::mutex mutex;
  std::condition_variable ended;
  bool started = false, done = false;
  std::thread thread{[this] {
    const int cpus = omp_get_num_procs();
#pragma omp parallel num_threads(cpus + 1)
    {
      [[maybe_unused]] volatile int each = omp_get_thread_num();
    }
    std::unique_lock lock(mutex);
    started = true;
    ended.notify_all();
    ended.wait(lock, [this] { return done; });
  }};
};

ShortSpin::ShortSpin() : team_(new Team) {
  std::unique_lock lock(team_->mutex);
  team_->ended.wait(lock, [this] { return team_->started; });
}

ShortSpin::~ShortSpin() {
  {
    std::lock_guard lock(team_->mutex);
    team_->done = true;
  }
  team_->ended.notify_all();
  team_->thread.join();
  delete team_;
}

void shorten_idle_spin_when_contended() {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  if (seconds_waited() < 0) return;
  static Watcher watcher;
}

}  // namespace seer
