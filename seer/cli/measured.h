#pragma once
// Long measurements: what is said before them, results that are shown as they come and written whatever
// happens meanwhile.

#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "seer/cli/settings.h"

namespace seer::cli {

// "memory: about 1.2 GiB of the 20 GiB that are free": weights and a pass over `tokens` tokens.
std::string memory_text(const ModelArgs& model, const io::ModelConfig& config, int64_t tokens,
                        int64_t block);

// A line on standard error where `tokens` are more than the model was made for.
void warn_of_context(const char* verb, const io::ModelConfig& config, int64_t tokens);

// Writes to `out` at once, so that what is there when the process is killed has been seen. Error: it
// cannot be written.
void show(std::FILE* out, const std::string& text);
// The same of a line that may hold strings from outside, fit for a terminal.
void show_line(std::FILE* out, const std::string& line);

// Ends a measurement. Everything in `writes` is tried, the next though one fails: each is named in a
// warning then, and the verb fails at the end. Before that, in this order: `failed` is thrown on, a signal
// ends with Interrupted, `trouble` is an error.
struct Write {
  std::string what;  // "the picture"
  std::function<void()> write;
};
void conclude(const std::vector<Write>& writes, const std::exception_ptr& failed, int signal,
              const std::string& trouble);

}  // namespace seer::cli
