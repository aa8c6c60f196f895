// A step of fine-tuning at a long context, with dense and with block-sparse attention: its time, where
// that goes, and the memory that it takes.

#include "seer/train/tasks/finetune.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "seer/bench/bench.h"
#include "seer/bench/model_shapes.h"
#include "seer/bench/op_times.h"
#include "seer/bench/peak_memory.h"
#include "seer/io/context.h"
#include "seer/report/table.h"

namespace seer::bench {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

// Steps in pairs: gates get a gradient in the first of a pair, not in the second. The first pair warms
// up, the last one is taken apart.
constexpr int64_t kPair = 2;

const std::vector<OpPart>& parts() {
  static const std::vector<OpPart> all{
      {"attention_forward", {"seer::block_sparse_attn", "aten::scaled_dot_product_attention"}},
      {"attention_backward",
       {"seer::block_sparse_attn_backward", "aten::_scaled_dot_product_cudnn_attention_backward",
        "aten::_scaled_dot_product_flash_attention_backward",
        "aten::_scaled_dot_product_efficient_attention_backward",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward"}},
      {"pooled", {"seer::pooled_map"}},
      {"gates",
       {"seer::attn_gate_vectors", "seer::attn_gate_pool", "seer::attn_gate_project",
        "seer::attn_gate_project_grad", "seer::attn_gate_score", "seer::attn_gate_score_grad",
        "seer::gate_loss", "seer::gate_loss_with_grad", "seer::block_select"}},
      {"products", {"aten::linear", "aten::matmul", "aten::mm"}},
      {"loss", {"seer::cross_entropy"}},
      {"optimizer", {"seer::optimizer"}}};
  return all;
}

// The steps of one run, told apart by whether gates get a gradient.
class StepTimes {
 public:
  StepTimes(const at::Device& device, PeakMemory& peak, int64_t runs)
      : device_(device), peak_(peak), runs_(runs) {}

  int64_t steps() const { return kPair * (runs_ + 2); }

  void on_step(int64_t step) {
    torch_ops::synchronize(device_);
    const std::chrono::duration<double, std::milli> ms = Clock::now() - begin_;
    if (times_) take_apart(step - 1, ms.count());
    if (step > kPair && step <= kPair * (runs_ + 1)) ms_[(step - 1) % kPair].push_back(ms.count());
    if (step == 1) peak_.restart();
    if (step >= kPair * (runs_ + 1) && step < steps()) times_.emplace(parts(), device_);
    begin_ = Clock::now();
  }

  // Of steps whose gates get a gradient (0) or not (1): the median time, the parts of one.
  double median_ms(int kind) const {
    std::vector<double> sorted = ms_[kind];
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  const json& parts_ms(int kind) const { return parts_[kind]; }

 private:
  void take_apart(int64_t step, double total) {
    json& parts = parts_[step % kPair];
    double rest = total;
    for (const auto& [name, seconds] : times_->seconds()) {
      parts[name] = 1e3 * seconds;
      rest -= 1e3 * seconds;
    }
    parts["rest"] = rest;
    times_.reset();
  }

  const at::Device device_;
  PeakMemory& peak_;
  const int64_t runs_;
  Clock::time_point begin_;
  std::vector<double> ms_[kPair];
  json parts_[kPair];
  std::optional<OpTimes> times_;
};

// density 1: dense attention, without gates.
json measure(const Request& request, const std::string& shape, int64_t length, double density,
             const io::Tokenizer& tokenizer, train::Ranks& ranks) {
  PeakMemory peak(request.device);
  models::Decoder model = random_model(shape, request.model_dtype, request.device);
  const io::ModelConfig config = model.config();
  const bool is_dense = density >= 1;
  StepTimes times(request.device, peak, request.runs);
  train::FinetuneSettings s;
  s.loop.keeps = false;
  s.loop.show_progress = false;
  s.loop.steps = times.steps();
  s.loop.ranks = &ranks;
  s.loop.states_on_host = request.states_on_host;
  s.loop.on_step = [&](int64_t step) { times.on_step(step); };
  s.attention = is_dense ? "dense" : "sparse";
  if (!is_dense) s.density = density;
  s.gate_every = kPair;
  // A context that is too short is stretched, as users would do.
  const auto context = static_cast<double>(io::context_length(config));
  if (context > 0) s.yarn_factor = std::max(1.0, static_cast<double>(length) / context);
  s.sequences = request.sequences;
  s.length = length;
  s.device = request.device;
  s.dtype = request.model_dtype;
  train::finetune(
      std::move(model),
      random_tokens((times.steps() + 1) * request.sequences * (length + 1), tokenizer, config),
      tokenizer, s);

  const double step_tokens = static_cast<double>(request.sequences * length);
  const double ms =
      is_dense ? std::min(times.median_ms(0), times.median_ms(1)) : times.median_ms(0);
  const double flop = 3 * step_tokens *
                      (flop_per_token(config, length, density) +
                       2.0 * config.hidden_size * static_cast<double>(config.vocab_size));
  const double most = peak_flops(request.device) * ranks.size();
  json row{{"implementation", is_dense ? "dense" : "seer"},
           {"model", shape},
           {"len_q", length},
           {"dtype", request.model_dtype == at::kFloat ? "f32" : "bf16"},
           {"sequences", request.sequences},
           {"states_on_host", request.states_on_host},
           {"density", density},
           {"gpus", request.device.is_cuda() ? ranks.size() : 0},
           {"runs", request.runs},
           {"median_ms", ms},
           {"parts", times.parts_ms(0)},
           {"tokens_per_s", 1e3 * step_tokens / ms},
           {"model_tflops", 1e-9 * flop / ms},
           {"mfu", most > 0 ? json(1e3 * flop / ms / most) : json()},
           {"peak_mib", peak.mib()}};
  if (!is_dense) {
    row["without_gates_ms"] = times.median_ms(1);
    row["parts_without_gates"] = times.parts_ms(1);
  }
  return row;
}

}  // namespace

void finetune(const Request& request, json& rows) {
  const auto ranks = train::Ranks::from_environment(request.device);
  const io::Tokenizer tokenizer = io::Tokenizer::load(request.model);
  std::vector<double> densities{1};
  densities.insert(densities.end(), request.densities.begin(), request.densities.end());
  for (const std::string& shape : request.shapes) {
    for (const int64_t length : request.lengths) {
      for (const double density : densities) {
        json row = measure(request, shape, length, density, tokenizer, *ranks);
        if (ranks->is_first()) rows.push_back(std::move(row));
      }
    }
  }
}

std::string finetune_table(const json& rows) {
  report::Table table({"model", "length", "windows", "GPUs", "attention", "density", "step",
                       "map every 8th", "forward", "backward", "map", "gates", "products", "loss",
                       "optimizer", "rest", "tokens/s", "MFU", "peak MiB"});
  for (const auto& r : rows) {
    const json& parts = r["parts"];
    const auto part = [&](const char* name) { return ms_text(parts[name], 0); };
    const double every = r["median_ms"];
    const bool is_dense = !r.contains("without_gates_ms");
    const double eighth = is_dense ? every : (every + 7 * r["without_gates_ms"].get<double>()) / 8;
    table.add({r["model"], std::to_string(r["len_q"].get<int64_t>()),
               std::to_string(r["sequences"].get<int64_t>()), std::to_string(r["gpus"].get<int>()),
               r["implementation"], report::fixed(r["density"], 2), ms_text(every, 0),
               is_dense ? "" : ms_text(eighth, 0), part("attention_forward"),
               part("attention_backward"), part("pooled"), part("gates"), part("products"),
               part("loss"), part("optimizer"), part("rest"), report::fixed(r["tokens_per_s"], 0),
               percent_text(r["mfu"]), report::fixed(r["peak_mib"], 0)});
  }
  return table.text();
}

}  // namespace seer::bench
