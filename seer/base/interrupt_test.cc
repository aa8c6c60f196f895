#include "seer/base/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace seer {
namespace {

TEST(Interrupt, TheFirstSignalIsNotedTheSecondEndsTheProcess) {
  InterruptGuard guard;
  EXPECT_EQ(guard.signal(), 0);
  ::raise(SIGTERM);
  EXPECT_EQ(guard.signal(), SIGTERM);
  EXPECT_EXIT(::raise(SIGINT), ::testing::KilledBySignal(SIGINT), "");
}

TEST(Interrupt, ALauncherMayPassOnTheSameSignal) {
  InterruptGuard guard(1e6);
  ::raise(SIGINT);
  ::raise(SIGINT);
  ::raise(SIGTERM);
  EXPECT_EQ(guard.signal(), SIGINT);
}

TEST(Interrupt, NothingIsChangedForEver) {
  {
    InterruptGuard guard;
  }
  EXPECT_EXIT(::raise(SIGTERM), ::testing::KilledBySignal(SIGTERM), "");
}

TEST(Interrupt, TheOuterGuardAnswersWhatCameInAnInnerOnesLife) {
  InterruptGuard outer;
  outer.answer("nothing came");
  {
    InterruptGuard inner;
    ::raise(SIGTERM);
    inner.answer("not yet saved");
  }
  InterruptGuard second;
  EXPECT_EQ(second.signal(), SIGTERM);
  second.answer("not yet saved");
}

TEST(Interrupt, AnAnswerNamesTheSignalAndTheNextWorkIsNotConcerned) {
  try {
    InterruptGuard guard;
    ::raise(SIGTERM);
    guard.answer("all is saved");
    FAIL() << "no answer";
  } catch (const Interrupted& stopped) {
    EXPECT_EQ(stopped.signal, SIGTERM);
    EXPECT_STREQ(stopped.what(), "all is saved");
  }
  InterruptGuard next;
  EXPECT_EQ(next.signal(), 0);
}

TEST(Interrupt, IgnoredSignalsStayIgnored) {
  const auto before = ::signal(SIGINT, SIG_IGN);
  InterruptGuard guard;
  ::raise(SIGINT);
  EXPECT_EQ(guard.signal(), 0);
  ::signal(SIGINT, before);
}

}  // namespace
}  // namespace seer
