// A whole prompt through a model: time and the memory that it takes beyond the weights.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <fstream>

#include "seer/base/error.h"
#include "seer/bench/bench.h"

namespace seer::bench {
namespace {

// A line of /proc/self/status, in MiB.
double status_mib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stod(line.substr(name.size() + 1)) / 1024;
  }
  fail("/proc/self/status has no ", name);
}

// From here on the peak counts anew (proc(5), clear_refs).
void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace

void prefill(const models::Decoder& model, const models::Gates& gates,
             const torch_ops::Selection& selection, int64_t length, int runs, double seconds,
             nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::randint(model.config().vocab_size, {length}, at::kLong);
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
  const models::SparseSettings settings{.scorer = models::Scorer::gate,
                                        .selection = selection,
                                        .block = gates.config().block_size,
                                        .seed = 0};
  for (const bool dense : {true, false}) {
    models::SparseAttention sparse(model, &gates, settings);
    const models::Attention attention = [&](const models::AttentionInput& input) {
      return dense ? models::dense_attention(input) : sparse(input);
    };
    const double before = status_mib("VmRSS");
    reset_peak();
    const Times t = time_calls([&] { model.hidden(ids, sequences, attention); }, runs, seconds);
    rows.push_back({{"implementation", dense ? "dense" : "seer"},
                    {"heads_q", model.config().num_heads},
                    {"heads_kv", model.config().num_kv_heads},
                    {"head_dim", model.config().head_dim},
                    {"len_q", length},
                    {"len_k", length},
                    {"density", dense ? 1.0 : sparse.statistics().density()},
                    {"lists", dense ? "dense" : "gate"},
                    {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"},
                    {"median_ms", t.median_ms},
                    {"min_ms", t.min_ms},
                    {"max_ms", t.max_ms},
                    {"runs", t.runs},
                    {"kept_tflops", nullptr},
                    {"peak_mib", status_mib("VmHWM") - before}});
  }
}

}  // namespace seer::bench
