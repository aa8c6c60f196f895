#pragma once
// Errors of the whole library: one exception type for failures, one for wrong usage, and a check.

#include <sstream>
#include <stdexcept>
#include <string>

namespace seer {

// A failure that a user can read: one line that says what is wrong, where, and what to do.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The command line or a configuration is wrong (exit status 2; every other Error gives 1).
struct UsageError : Error {
  using Error::Error;
};

// Joins its arguments into one message.
template <class... Args>
std::string message(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// Throws Error with the arguments joined: fail("cannot read ", path, ": ", reason).
template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw Error(message(args...));
}

}  // namespace seer

// Fails when the caller broke the contract. Say what was expected and what came:
//   SEER_CHECK(d == 64 || d == 128, "head_dim is ", d, ", want 64 or 128");
#define SEER_CHECK(condition, ...) \
  do {                             \
    if (!(condition)) {            \
      ::seer::fail(__VA_ARGS__);   \
    }                              \
  } while (false)
