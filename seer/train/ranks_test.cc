// Several processes are tested as programs (tests/python/test_ranks.py); here how they leave.

#include "seer/train/ranks.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

namespace seer::train {
namespace {

int free_port() {
  const int s = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(s, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(s, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(s);
  return ntohs(address.sin_port);
}

// The second of two processes writes '1' when it begins to leave, late; the first '0' when it has
// left.
void meet_and_leave(int rank, int port, int out) {
  setenv("WORLD_SIZE", "2", 1);
  setenv("RANK", std::to_string(rank).c_str(), 1);
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
  unsetenv("TORCHELASTIC_USE_AGENT_STORE");
  auto ranks = Ranks::from_environment(at::kCPU);
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

}  // namespace
}  // namespace seer::train
