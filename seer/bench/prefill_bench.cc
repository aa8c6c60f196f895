// A whole prompt through a model: time to the first token, where it goes, and the memory that it
// takes beyond the weights.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "seer/base/error.h"
#include "seer/bench/bench.h"
#include "seer/bench/op_stopwatch.h"
#include "seer/bench/peak_memory.h"
#include "seer/torch/stopwatch.h"

namespace seer::bench {
namespace {

// One of torch's dense attentions and no other, while it lives.
class OnlyDense {
 public:
  explicit OnlyDense(const std::string& name) {
    auto& context = at::globalContext();
    context.setSDPUseFlash(name != "cuDNN");
    context.setSDPUseCuDNN(name == "cuDNN");
  }
  ~OnlyDense() {
    at::globalContext().setSDPUseFlash(true);
    at::globalContext().setSDPUseCuDNN(true);
  }
};

}  // namespace

void prefill(const models::Decoder& model, const models::Gates& gates,
             const std::vector<torch_ops::Selection>& selections, int64_t length, int runs,
             double seconds, const std::string& name, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const at::Device device = model.device();
  const at::Tensor ids = at::randint(model.config().vocab_size, {length}, at::kLong).to(device);
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

  // selection: null where dense.
  const auto measure = [&](const std::string& implementation,
                           const torch_ops::Selection* selection) {
    models::SparseSettings settings{.scorer = models::Scorer::gate,
                                    .selection = selection ? *selection : torch_ops::Selection{},
                                    .block = gates.config().block_size,
                                    .seed = 0};
    models::SparseAttention sparse(model, &gates, settings);
    torch_ops::Stopwatch dense_time(device);
    const models::Attention attention = [&](const models::AttentionInput& input) {
      if (selection) return sparse(input);
      const auto span = dense_time.span();
      return models::dense_attention(input);
    };
    const auto first_token = [&] {
      const at::Tensor hidden = model.hidden(ids, sequences, attention);
      model.logits(hidden.slice(0, -1)).argmax(-1);
      torch_ops::synchronize(device);
    };
    OpStopwatch products_time("aten::linear", device);
    first_token();
    sparse.reset_statistics();
    dense_time.reset();
    products_time.reset();
    const PeakMemory peak(device);
    const Times t = time_calls(first_token, runs, seconds, /*warm_up=*/false);
    const models::SparseStatistics s = sparse.statistics();
    const double each = 1e3 / t.runs;
    const double gate = s.score_seconds * each, select = s.select_seconds * each;
    const double products = products_time.seconds() * each;
    const double attend = selection ? s.attention_seconds * each : dense_time.seconds() * each;
    rows.push_back({{"implementation", implementation},
                    {"model", name},
                    {"heads_q", model.config().num_heads},
                    {"heads_kv", model.config().num_kv_heads},
                    {"head_dim", model.config().head_dim},
                    {"len_q", length},
                    {"len_k", length},
                    {"density", selection ? s.density() : 1.0},
                    {"lists", selection ? "gate" : "dense"},
                    {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"},
                    {"median_ms", t.median_ms},
                    {"min_ms", t.min_ms},
                    {"max_ms", t.max_ms},
                    {"runs", t.runs},
                    {"kept_tflops", nullptr},
                    {"gate_ms", gate},
                    {"select_ms", select},
                    {"attention_ms", attend},
                    {"products_ms", products},
                    {"rest_ms", t.median_ms - gate - select - attend - products},
                    {"peak_mib", peak.mib()}});
  };

  const std::vector<std::string> dense = device.is_cuda()
                                             ? std::vector<std::string>{"FlashAttention-2", "cuDNN"}
                                             : std::vector<std::string>{""};
  // Of each dense run: its time, and what of it is not attention.
  std::map<std::string, std::pair<double, double>> dense_ms;
  for (const std::string& kind : dense) {
    const OnlyDense only(kind);
    measure(kind.empty() ? "dense" : "dense, " + kind, nullptr);
    const auto& row = rows.back();
    const double all = row["median_ms"];
    dense_ms[row["implementation"]] = {all, all - row["attention_ms"].get<double>()};
  }
  const auto fastest = std::min_element(
      dense_ms.begin(), dense_ms.end(),
      [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
  for (const auto& selection : selections) {
    measure("seer", &selection);
    auto& row = rows.back();
    for (const auto& [name, ms] : dense_ms) {
      row["overheads"][name] =
          row["median_ms"].get<double>() / (ms.second + row["attention_ms"].get<double>()) - 1;
    }
    row["overhead"] = row["overheads"][fastest->first];
  }
}

}  // namespace seer::bench
