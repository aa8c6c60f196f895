#include "seer/base/idle_spin.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <pthread.h>
#include <time.h>

#include <cstdlib>
#include <thread>

namespace seer {
namespace {

using std::chrono::milliseconds;

TEST(IdleSpin, IsContendedWhileThreadsWait) {
  const milliseconds span{250};
  Contention contention;
  EXPECT_FALSE(contention.update(0.0, span));
  EXPECT_FALSE(contention.update(0.02, span));  // 8 %
  EXPECT_TRUE(contention.update(0.03, span));   // 12 %
  EXPECT_TRUE(contention.update(0.02, span));   // stays: not calm yet
  for (int i = 0; i < 7; ++i) EXPECT_TRUE(contention.update(0.0, span));
  EXPECT_FALSE(contention.update(0.0, span));  // calm for two seconds
  EXPECT_FALSE(contention.update(-1.0, span));
}

double cpu_seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// CPU time that the second thread of a team uses beside 50 empty loops, 3 ms apart.
double idle_cpu_seconds() {
  clockid_t clock{};
  const auto loop = [&] {
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 1) pthread_getcpuclockid(pthread_self(), &clock);
  };
  loop();
  const double before = cpu_seconds(clock);
  for (int i = 0; i < 50; ++i) {
    loop();
    std::this_thread::sleep_for(milliseconds(3));
  }
  return cpu_seconds(clock) - before;
}

TEST(IdleSpin, IdleThreadsSleepAtOnceWhileAShortSpinLives) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr ||
      omp_get_num_procs() < 2) {
    GTEST_SKIP() << "idle threads do not spin here";
  }
  const double usual = idle_cpu_seconds();
  double shortened = 0;
  {
    const ShortSpin short_spin;
    shortened = idle_cpu_seconds();
  }
  EXPECT_LT(shortened, usual / 3);
  EXPECT_LT(shortened, idle_cpu_seconds() / 3);  // and as before when it is gone
}

}  // namespace
}  // namespace seer
