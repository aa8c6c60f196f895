#include "seer/cli/bench_distill.h"

#include <unistd.h>

#include <filesystem>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/bench/model_shapes.h"
#include "seer/bench/peak_memory.h"
#include "seer/report/table.h"
#include "seer/train/distill.h"

namespace seer::cli {
namespace {

constexpr double kRecipeTokens = 500.0 * 16 * 65536;

// A run needs a folder; nothing of it is kept.
struct ScratchFolder {
  std::filesystem::path path;
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "seer_bench_XXXXXX").string();
    SEER_CHECK(::mkdtemp(name.data()) != nullptr, "cannot make a folder ", name);
    path = name;
  }
  ~ScratchFolder() { std::filesystem::remove_all(path); }
};

}  // namespace

void bench_distill(const ModelArgs& model_args, const std::vector<std::string>& shapes,
                   const std::vector<int64_t>& lengths, int runs, nlohmann::json& rows) {
  if (shapes.empty()) throw UsageError("bench distill: name models with --shapes");
  const io::Tokenizer tokenizer = model_args.tokenizer();
  const at::Device device = model_args.resolved_device();
  for (const std::string& shape : shapes) {
    const bench::PeakMemory peak(device);
    const models::Decoder model = bench::random_model(shape, model_args.resolved_dtype(), device);
    for (const int64_t length : lengths) {
      std::vector<int32_t> tokens(static_cast<size_t>((runs + 2) * length));
      Random random(1);
      for (int32_t& token : tokens) {
        token = static_cast<int32_t>(random.below(static_cast<uint64_t>(tokenizer.vocab_size())));
      }
      const auto seconds_of = [&](int64_t steps) {
        const ScratchFolder folder;
        train::DistillSettings s;
        s.loop.out = folder.path;
        s.loop.steps = steps;
        s.loop.show_progress = false;
        s.sequences = 1;
        s.length = length;
        s.data.synthetic_share = 0;
        return train::distill(model, tokens, tokenizer, s).seconds;
      };
      const double first = seconds_of(1);  // warms up, and is what a run takes beside its steps
      const double all = seconds_of(runs + 1);
      const double rate = static_cast<double>(runs * length) / std::max(all - first, 1e-9);
      rows.push_back({{"implementation", "seer"},
                      {"model", shape},
                      {"len_q", length},
                      {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"},
                      {"runs", runs},
                      {"tokens_per_s", rate},
                      {"hours", kRecipeTokens / rate / 3600},
                      {"peak_mib", peak.mib()}});
    }
  }
}

std::string distill_table(const nlohmann::json& rows) {
  report::Table table({"model", "length", "dtype", "tokens/s", "0.524 B tokens", "peak MiB"});
  for (const auto& r : rows) {
    table.add({r["model"], std::to_string(r["len_q"].get<int64_t>()), r["dtype"],
               report::fixed(r["tokens_per_s"], 0), report::fixed(r["hours"], 1) + " h",
               report::fixed(r["peak_mib"], 0)});
  }
  return table.text();
}

}  // namespace seer::cli
