#pragma once
// Another program as a function: bytes in, bytes out, with limits.

#include <chrono>
#include <string>
#include <vector>

namespace seer {

struct ChildResult {
  enum class End { exited, killed, too_long, too_much, not_started };
  End end = End::exited;
  int status = 0;  // of `exited`: the exit status; of `killed`: the signal; of `not_started`: errno
  std::string output;     // what it wrote to standard output
  std::string last_line;  // of what it wrote to standard error
};

// Runs `words` (words[0] is a path or is found in PATH) with `input` on standard input.
// Killed after `seconds` or when it has written more than `most` bytes.
ChildResult run_child(const std::vector<std::string>& words, const std::string& input,
                      std::chrono::duration<double> seconds, size_t most);

}  // namespace seer
