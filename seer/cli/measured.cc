#include "seer/cli/measured.h"

#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/context.h"
#include "seer/models/memory.h"

namespace seer::cli {

std::string memory_text(const ModelArgs& model, const io::ModelConfig& config, int64_t tokens,
                        int64_t block) {
  const at::Device device = model.resolved_device();
  const at::ScalarType dtype = model.resolved_dtype();
  const double needed = (model.stream ? 0 : models::weight_bytes(config, dtype)) +
                        models::pass_bytes(config, tokens, block, dtype);
  const double free = models::available_bytes(device);
  std::string text = "memory: about " + models::bytes_text(needed);
  if (free > 0) text += " of the " + models::bytes_text(free) + " that are free";
  if (free > 0 && needed > free) text += ", which may not be enough: choose a shorter length";
  return text;
}

void warn_of_context(const char* verb, const io::ModelConfig& config, int64_t tokens) {
  const std::string warning = io::context_warning(config, tokens);
  if (!warning.empty()) print_line(message("seer ", verb, ": ", warning));
}

void show(std::FILE* out, const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  if (std::fflush(out) != 0 || !written) {
    fail("cannot write to ", out == stdout ? "standard output" : "standard error",
         ": is the disk full?");
  }
}

void show_line(std::FILE* out, const std::string& line) {
  show(out, one_line(line, limits::kMessageLength) + "\n");
}

void conclude(const std::vector<Write>& writes, const std::exception_ptr& failed, int signal,
              const std::string& trouble) {
  std::string unwritten;
  for (const Write& one : writes) {
    try {
      one.write();
    } catch (const std::exception& error) {
      print_line("seer: warning: " + one.what + " was not written: " + error.what());
      unwritten += (unwritten.empty() ? "" : ", ") + one.what;
    }
  }
  if (failed) std::rethrow_exception(failed);
  if (signal != 0) {
    throw Interrupted(signal, "stopped: the rows above are of what was measured until then");
  }
  if (!trouble.empty()) fail(trouble);
  if (!unwritten.empty()) fail("not everything was written: ", unwritten, " (see above)");
}

}  // namespace seer::cli
