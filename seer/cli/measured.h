#pragma once
// Measurements: the machine, what is said before long ones, results that are shown as they come and
// written whatever happens meanwhile.

#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "seer/cli/settings.h"
#include "seer/eval/perplexity_table.h"

namespace seer::cli {

// Limits the operations and torch to AVX2, to measure a CPU without AVX-512 on one that has it. Call
// it before anything runs.
void limit_to_avx2();

// A folder's name for results: "amd-epyc-2-threads-avx512bf16", "nvidia-h200".
std::string chip_folder(const at::Device& device);

// The record of rows that this command line has made on `device` (report/results.h); a GPU's names
// nothing of the CPU beside it.
nlohmann::json record_of(const std::string& operation, int argc, char** argv, nlohmann::json rows,
                         const at::Device& device);

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

// Says where a page of results is, and how large: "report   runs/first/report.html (1.2 MB)".
void show_page(size_t bytes, const std::filesystem::path& path, std::FILE* out = stdout);

// Rows of a comparison, and what ended them early.
struct Compared {
  std::vector<eval::Row> rows;
  std::exception_ptr failed;
  int signal = 0;
  bool complete() const { return !failed && signal == 0; }
};
// A model of a comparison.
struct Candidate {
  eval::Subject subject;
  std::vector<eval::Method> methods;
  // Calls `use` with the model and its gates (null where no method needs them), whose life may end there.
  using Use = std::function<void(const models::Decoder& model, const models::Gates* gates)>;
  std::function<void(const Use& use)> lend;
};
// One model after another: all its methods on windows of each length, with rows shown on `out` as they
// come. A signal ends it. `title`: of the progress at a length.
Compared compare_methods(const std::vector<Candidate>& models,
                         const std::vector<eval::Windows>& windows, std::FILE* out,
                         const std::function<std::string(int64_t length)>& title);

// Ends a measurement. Tries every write, even after one has failed; a warning names each failure, and
// the verb fails at the end. First of these applies: `failed` is rethrown, a signal ends with
// Interrupted, `trouble` is an error, a failed write is one.
struct Write {
  std::string what;  // "the picture"
  std::function<void()> write;
};
void conclude(const std::vector<Write>& writes, const std::exception_ptr& failed, int signal,
              const std::string& trouble);

}  // namespace seer::cli
