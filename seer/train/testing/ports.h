#pragma once
// For tests: ports that nobody has.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace seer::train {

// A socket that is bound to a port that nobody has.
struct Bound {
  Bound() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(file, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(file, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port = ntohs(address.sin_port);
  }
  ~Bound() { close(file); }
  const int file = socket(AF_INET, SOCK_STREAM, 0);
  int port;
};

inline int free_port() {
  return Bound().port;
}

}  // namespace seer::train
