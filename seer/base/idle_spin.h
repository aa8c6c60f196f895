#pragma once
// How long idle OpenMP threads spin.
//
// Between two parallel loops the threads of libgomp spin for up to a millisecond before they sleep.
// On free CPUs that saves the time of waking them; beside another busy process it takes the CPU
// from threads that have work, this process's own among them.

#include <chrono>

namespace seer {

// Whether others want the CPUs, from the time that this process's threads wait for one.
class Contention {
 public:
  // `waited`: CPU seconds that the threads waited within `span`.
  bool update(double waited, std::chrono::duration<double> span);

 private:
  bool contended_ = false;
  double calm_s_ = 0;
};

// While it lives, idle threads of libgomp sleep almost at once.
class ShortSpin {
 public:
  ShortSpin();
  ~ShortSpin();
  ShortSpin(const ShortSpin&) = delete;
  ShortSpin& operator=(const ShortSpin&) = delete;

 private:
  struct Team;
  Team* team_;
};

// From now on a ShortSpin lives whenever others want the CPUs. Nothing where the environment decides
// (OMP_WAIT_POLICY, GOMP_SPINCOUNT) or the kernel does not tell how long threads wait.
void shorten_idle_spin_when_contended();

}  // namespace seer
