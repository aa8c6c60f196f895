#include "seer/cli/measured.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cstdlib>
#include <fstream>

#include "seer/base/interrupt.h"
#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/context.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/impl.h"
#include "seer/models/memory.h"
#include "seer/report/results.h"
#include "seer/report/table.h"

namespace seer::cli {
namespace {

bool limited = false;

std::string chip_name(const at::Device& device) {
  if (device.is_cuda()) return kernels::cuda_device_name(device.has_index() ? device.index() : 0);
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

}  // namespace

void limit_to_avx2() {
  kernels::limit_cpu_to_avx2();
  limited = true;
  // What torch, oneDNN and MKL read when they first run.
  setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2", 1);
}

std::string chip_folder(const at::Device& device) {
  const std::string chip = report::slug(chip_name(device));
  if (device.is_cuda()) return chip;
  return chip + "-" + std::to_string(at::get_num_threads()) + "-threads" +
         (kernels::cpu_has_bf16_dot() ? "-avx512bf16"
          : limited                   ? "-avx2"
                                      : "");
}

nlohmann::json record_of(const std::string& operation, int argc, char** argv, nlohmann::json rows,
                         const at::Device& device) {
  nlohmann::json machine{{"chip", chip_name(device)},
                         {"versions", {{"torch", TORCH_VERSION}, {"compiler", __VERSION__}}}};
  if (!device.is_cuda()) {
    machine.update({{"threads", at::get_num_threads()},
                    {"avx2_at_most", limited},
                    {"bf16_dot_product", kernels::cpu_has_bf16_dot()}});
  }
  return report::record(operation, {argv, argv + argc}, machine, std::move(rows));
}

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

void show_page(size_t bytes, const std::filesystem::path& path, std::FILE* out) {
  const std::string size = report::fixed(static_cast<double>(bytes) / 1e6, 1);
  show_line(out, message("report   ", path.string(), " (", size, " MB, for a browser)"));
}

Compared compare_methods(const std::vector<Candidate>& models,
                         const std::vector<eval::Windows>& windows, std::FILE* out,
                         const std::function<std::string(int64_t length)>& title) {
  Compared compared;
  std::vector<int64_t> lengths;
  for (const eval::Windows& of : windows) lengths.push_back(of.length);
  std::vector<eval::Method> methods;
  std::vector<eval::Subject> subjects;
  for (const Candidate& each : models) {
    methods.insert(methods.end(), each.methods.begin(), each.methods.end());
    subjects.push_back(each.subject);
  }
  eval::RowLines lines(methods, lengths, subjects);
  const InterruptGuard interrupt;
  const auto measure = [&](const Candidate& each, const eval::Windows& of,
                           const models::Decoder& model, const models::Gates* gates) {
    const std::string& name = each.subject.model;
    Progress progress(title(of.length) + (name.empty() ? "" : ", " + name),
                      static_cast<int64_t>(each.methods.size() * of.ids.size()));
    eval::Watch watch;
    watch.part = [&](double share) { progress.part(share, ""); };
    watch.pass = [&] { progress.advance(); };
    watch.stop = [&] { return interrupt.signal() != 0; };
    watch.row = [&](eval::Row row) {
      row.subject = each.subject;
      compared.rows.push_back(row);
      progress.clear();
      show(out, lines.line(row));
    };
    eval::compare(model, gates, each.methods, of, watch);
  };
  try {
    show(out, lines.head());
    for (const Candidate& each : models) {
      if (interrupt.signal() != 0) break;
      each.lend([&](const models::Decoder& model, const models::Gates* gates) {
        for (const eval::Windows& of : windows) {
          if (interrupt.signal() == 0) measure(each, of, model, gates);
        }
      });
    }
  } catch (...) {
    compared.failed = std::current_exception();
  }
  compared.signal = interrupt.signal();
  return compared;
}

void conclude(const std::vector<Write>& writes, const std::exception_ptr& failed, int signal,
              const std::string& trouble) {
  std::string unwritten;
  for (const Write& one : writes) {
    try {
      one.write();
    } catch (const std::exception& error) {
      print_line("seer: warning: not written: " + one.what + ": " + error.what());
      unwritten += (unwritten.empty() ? "" : ", ") + one.what;
    }
  }
  if (failed) std::rethrow_exception(failed);
  if (signal != 0) {
    throw Interrupted(signal,
                      "stopped: the rows above, if any, are of what was measured until then");
  }
  if (!trouble.empty()) fail(trouble);
  if (!unwritten.empty()) fail("not everything was written: ", unwritten, " (see above)");
}

}  // namespace seer::cli
