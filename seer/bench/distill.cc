#include "seer/bench/bench.h"

#include "seer/bench/model_shapes.h"
#include "seer/bench/peak_memory.h"
#include "seer/report/table.h"
#include "seer/train/tasks/distill.h"

namespace seer::bench {
namespace {

constexpr double kRecipeTokens = 500.0 * 16 * 65536;

}  // namespace

void distill(const Request& request, nlohmann::json& rows) {
  const auto ranks = train::Ranks::from_environment(request.device);
  const io::Tokenizer tokenizer = io::Tokenizer::load(request.model);
  const int64_t sequences = request.sequences;
  const int runs = request.runs;
  const at::Device device = request.device;
  for (const std::string& shape : request.shapes) {
    const PeakMemory peak(device);
    const models::Decoder model = random_model(shape, request.model_dtype, device, request.stream);
    for (const int64_t length : request.lengths) {
      const auto tokens = random_tokens((runs + 2) * sequences * length, tokenizer, model.config());
      const auto distil = [&](int64_t steps) {
        train::DistillSettings s;
        s.loop.keeps = false;
        s.loop.steps = steps;
        s.loop.show_progress = false;
        s.loop.ranks = ranks.get();
        s.sequences = sequences;
        s.length = length;
        s.data.synthetic_share = 0;
        s.profile = true;
        s.lookup.share = 0;
        return train::distill(model, tokens, tokenizer, s);
      };
      distil(1);                     // warms up
      const auto first = distil(1);  // what a run takes beside its steps, and one step
      const auto all = distil(runs + 1);
      if (!ranks->is_first()) continue;
      const double seconds = std::max(all.seconds - first.seconds, 1e-9);
      const double attention = all.attention_seconds - first.attention_seconds;
      const double gate = all.gate_seconds - first.gate_seconds;
      const double rate = static_cast<double>(runs * sequences * length) / seconds;
      const double flops = rate * flop_per_token(model.config(), length);
      const double most = peak_flops(device) * ranks->size();
      rows.push_back({{"implementation", "seer"},
                      {"model", shape},
                      {"len_q", length},
                      {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"},
                      {"sequences", sequences},
                      {"streamed", request.stream},
                      {"gpus", device.is_cuda() ? ranks->size() : 0},
                      {"runs", runs},
                      {"tokens_per_s", rate},
                      {"hours", kRecipeTokens / rate / 3600},
                      {"attention_share", attention / seconds},
                      {"gate_share", gate / seconds},
                      {"model_share", 1 - (attention + gate) / seconds},
                      {"model_tflops", 1e-12 * flops},
                      {"mfu", most > 0 ? nlohmann::json(flops / most) : nlohmann::json()},
                      {"peak_mib", peak.mib()}});
    }
  }
}

std::string distill_table(const nlohmann::json& rows) {
  report::Table table({"model", "length", "sequences", "layers", "GPUs", "dtype", "tokens/s",
                       "0.524 B tokens", "attention", "gates", "rest", "model TFLOP/s", "MFU",
                       "peak MiB"});
  for (const auto& r : rows) {
    table.add({r["model"], std::to_string(r["len_q"].get<int64_t>()),
               std::to_string(r["sequences"].get<int64_t>()),
               r["streamed"].get<bool>() ? "streamed" : "on device",
               std::to_string(r["gpus"].get<int>()), r["dtype"],
               report::fixed(r["tokens_per_s"], 0), report::fixed(r["hours"], 1) + " h",
               percent_text(r["attention_share"]), percent_text(r["gate_share"]),
               percent_text(r["model_share"]), report::fixed(r["model_tflops"], 1),
               percent_text(r["mfu"]), report::fixed(r["peak_mib"], 0)});
  }
  return table.text();
}

}  // namespace seer::bench
