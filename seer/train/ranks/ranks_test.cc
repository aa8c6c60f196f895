// Several processes are tested as programs (tests/python/test_ranks.py); here how they leave and
// how they are missed.

#include "seer/train/ranks/ranks.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "seer/base/error.h"
#include "seer/train/testing/ports.h"

namespace seer::train {
namespace {

std::unique_ptr<Ranks> start(int rank, int size, int port,
                             std::chrono::milliseconds limit = std::chrono::seconds(2),
                             std::chrono::milliseconds patience = Ranks::kPatience) {
  setenv("WORLD_SIZE", std::to_string(size).c_str(), 1);
  setenv("RANK", std::to_string(rank).c_str(), 1);
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
  unsetenv("TORCHELASTIC_USE_AGENT_STORE");
  return Ranks::from_environment(at::kCPU, limit, patience);
}

// The second of two processes writes '1' when it begins to leave, late; the first '0' when it has
// left.
void meet_and_leave(int rank, int port, int out) {
  auto ranks = start(rank, 2, port, Ranks::kSilence);
  ranks->meet();
  if (rank == 1) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    if (write(out, "1", 1) != 1) _exit(2);
  }
  ranks.reset();
  if (rank == 0 && write(out, "0", 1) != 1) _exit(2);
}

TEST(Ranks, TheFirstHoldsTheStoreAndLeavesLast) {
  const int port = free_port();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pid_t children[2];
  for (int rank = 0; rank < 2; ++rank) {
    children[rank] = fork();
    ASSERT_GE(children[rank], 0);
    if (children[rank] == 0) {
      try {
        meet_and_leave(rank, port, ends[1]);
      } catch (const std::exception&) {
        _exit(1);
      }
      _exit(0);
    }
  }
  close(ends[1]);
  for (const pid_t child : children) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  std::string order;
  for (char c = 0; read(ends[0], &c, 1) == 1;) order += c;
  close(ends[0]);
  EXPECT_EQ(order, "10");
}

// One of several processes meets the others again and again, and says on `out` that it has begun.
// Its errors go to `err`.
struct Child {
  pid_t pid = -1;
  int out = -1, err = -1;

  static Child meeting(int rank, int size, int port,
                       std::chrono::milliseconds limit = std::chrono::seconds(2)) {
    int out[2], err[2];
    EXPECT_EQ(pipe(out), 0);
    EXPECT_EQ(pipe(err), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(err[1], STDERR_FILENO);
      std::signal(SIGPIPE, SIG_DFL);  // as the program has it
      try {
        const auto ranks = start(rank, size, port, limit);
        if (write(out[1], "x", 1) != 1) _exit(2);
        for (;;) ranks->meet();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "seer: error: %s\n", error.what());
      }
      _exit(1);
    }
    close(out[1]);
    close(err[1]);
    return {pid, out[0], err[0]};
  }
  std::string rest(int file) const {
    std::string text;
    for (char c = 0; read(file, &c, 1) == 1;) text += c;
    close(file);
    return text;
  }
};

struct Loss {
  int size, rank, signal;
};

class LostRank : public testing::TestWithParam<Loss> {};

TEST_P(LostRank, EndsTheOthersWithALineThatNamesIt) {
  const auto [size, lost, signal] = GetParam();
  const int port = free_port();
  std::vector<Child> children;
  for (int rank = 0; rank < size; ++rank) children.push_back(Child::meeting(rank, size, port));
  char begun = 0;
  for (const Child& child : children) ASSERT_EQ(read(child.out, &begun, 1), 1);
  kill(children[lost].pid, signal);
  for (int rank = 0; rank < size; ++rank) {
    if (rank == lost) continue;
    const std::string said = children[rank].rest(children[rank].err);
    const std::string name = message("rank ", lost);
    EXPECT_THAT(said, testing::StartsWith(message("seer: error: rank ", rank, " of ", size, ": ")));
    EXPECT_THAT(said, testing::ContainsRegex(name + "\\)? does not answer any more"));
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    int status = -1;
    EXPECT_EQ(waitpid(children[rank].pid, &status, 0), children[rank].pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  }
  kill(children[lost].pid, SIGKILL);
  waitpid(children[lost].pid, nullptr, 0);
  for (const Child& child : children) close(child.out);
  close(children[lost].err);
}

std::string name_of(const testing::TestParamInfo<Loss>& info) {
  const auto& [size, rank, signal] = info.param;
  return message("Rank", rank, "Of", size, signal == SIGSTOP ? "Stopped" : "Killed");
}

INSTANTIATE_TEST_SUITE_P(Ranks, LostRank,
                         testing::Values(Loss{2, 0, SIGSTOP}, Loss{2, 1, SIGSTOP},
                                         Loss{2, 0, SIGKILL}, Loss{2, 1, SIGKILL},
                                         Loss{3, 0, SIGSTOP}, Loss{3, 1, SIGSTOP},
                                         Loss{3, 0, SIGKILL}, Loss{3, 1, SIGKILL}),
                         name_of);

// A process that was stopped before it answered: its port is open, as the system keeps it.
TEST(Ranks, AStoreThatDoesNotAnswerEndsTheStart) {
  const Bound listener;
  ASSERT_EQ(listen(listener.file, 8), 0);
  int err[2];
  ASSERT_EQ(pipe(err), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(err[1], STDERR_FILENO);
    try {
      start(1, 2, listener.port, std::chrono::milliseconds(300), std::chrono::milliseconds(300));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "seer: error: %s\n", error.what());
    }
    _exit(1);
  }
  close(err[1]);
  const Child child{pid, -1, err[0]};
  const std::string said = child.rest(err[0]);
  EXPECT_THAT(said, testing::StartsWith("seer: error: "));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
}

// All processes of a job are stopped and go on, as by Ctrl-Z: nobody is missed.
TEST(Ranks, AStopOfAllIsNoLoss) {
  const int port = free_port();
  Child children[2];
  // Long enough for a process that gets little of a busy CPU when it goes on.
  const std::chrono::milliseconds limit = std::chrono::seconds(4);
  for (int rank = 0; rank < 2; ++rank) children[rank] = Child::meeting(rank, 2, port, limit);
  char begun = 0;
  for (const Child& child : children) ASSERT_EQ(read(child.out, &begun, 1), 1);
  for (const Child& child : children) kill(child.pid, SIGSTOP);
  std::this_thread::sleep_for(limit + std::chrono::milliseconds(500));
  for (const Child& child : children) kill(child.pid, SIGCONT);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (const Child& child : children) {
    EXPECT_EQ(waitpid(child.pid, nullptr, WNOHANG), 0);
    kill(child.pid, SIGSTOP);  // before one is killed, which the other would say
  }
  for (const Child& child : children) {
    kill(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
    close(child.out);
    EXPECT_EQ(child.rest(child.err), "");
  }
}

// A broken socket is an error; output that nobody reads ends the process as ever.
TEST(Ranks, BrokenPipes) {
  const int port = free_port();
  const auto end_of = [&](bool socket) {
    const pid_t pid = fork();
    if (pid == 0) {
      int ends[2];
      if (pipe(ends) != 0) _exit(2);
      close(ends[0]);
      std::signal(SIGPIPE, SIG_DFL);
      const auto nobody = fork();
      if (nobody == 0) {
        start(1, 2, port)->meet();
        _exit(0);
      }
      start(0, 2, port)->meet();
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      dup2(socket ? null : ends[1], STDERR_FILENO);
      _exit(write(ends[1], "x", 1) == -1 && errno == EPIPE ? 0 : 3);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  };
  EXPECT_EQ(end_of(true), 0);
  const int status = end_of(false);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) << status;
}

}  // namespace
}  // namespace seer::train
