#include "seer/cli/data_args.h"

#include <cmath>
#include <cstdio>

#include "seer/base/limits.h"
#include "seer/base/output.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/text.h"

namespace seer::cli {

void DataArgs::add(Args& args, train::DataSettings& settings) {
  args.group("Data");
  args.add("data", data,
           message("texts to train on: ", io::kTextFiles, "; broken ones are skipped and reported"))
      ->required();
  args.add("weights", weights, above(0, 1e12),
           "share of the windows from each text; default: equal");
  args.add("valid", valid, "held-out texts");
  args.add("synthetic", settings.synthetic_share, range(0, 1),
           "share of windows with inserted facts and copies");
  args.add("cache", cache_, "folder of token files");
  args.group("");
  args.when_read([this] {
    if (!weights.empty() && weights.size() != data.size()) {
      throw UsageError(
          message("--weights: ", weights.size(), " for ", data.size(), " texts in --data"));
    }
    for (const auto* files : {&data, &valid}) {
      for (const std::string& path : *files) io::check_text_file(path);
    }
    check_output_folder(cache_);
  });
}

void DataArgs::fill(train::DataSettings& settings) const {
  for (size_t i = 0; i < data.size(); ++i) {
    settings.train.push_back({data[i], weights.empty() ? 1 : weights[i]});
  }
  for (const std::string& path : valid) settings.valid.push_back({path, 1});
  settings.cache = cache_;
}

void LoopArgs::add(Args& args, train::LoopSettings& settings) {
  args.group("Run");
  args.output_folder("out", out,
                     "folder of the run and its result; the same folder again resumes it")
      ->required();
  args.add("steps", settings.steps, range(1, limits::kSteps), "optimizer steps");
  args.add("clip", settings.clip, range(0, 1e9), "largest norm of the gradient; 0: no clipping");
  args.add("save-every", settings.save_every, range(1, limits::kSteps),
           "steps between checkpoints");
  args.add("valid-every", settings.valid_every, range(0, limits::kSteps),
           "steps between validations; 0: at the end");
  args.flag("restart", settings.restart, "discard the run that lies in --out");
  args.group("");
}

void RankArgs::add(Args& args) {
  args.group("Several processes");
  args.add(
      "heartbeat", heartbeat_, range(1, limits::kHeartbeatSeconds),
      "seconds without a sign of life after which a process counts as gone and ends the others; at "
      "the start all have two minutes to find each other");
  args.group("");
}

std::unique_ptr<train::Ranks> RankArgs::start(const at::Device& device) const {
  return train::Ranks::from_environment(device,
                                        std::chrono::milliseconds(std::llround(heartbeat_ * 1000)));
}

void print_result(const char* verb, const train::RunResult& result, const std::string& out) {
  std::printf("seer %s: %lld steps, %s tokens in %s, loss %.4f", verb,
              static_cast<long long>(result.steps),
              count_text(static_cast<double>(result.tokens)).c_str(),
              duration_text(result.seconds).c_str(), result.loss);
  for (const auto& [name, value] : result.valid)
    std::printf(", %s %.4f", one_line(name, 300).c_str(), value);
  if (result.skipped_steps > 0) {
    std::printf(", %lld steps skipped", static_cast<long long>(result.skipped_steps));
  }
  if (result.skipped_documents > 0) {
    std::printf(", %lld documents skipped", static_cast<long long>(result.skipped_documents));
  }
  std::puts("");
  print_line("written: " + out, stdout);
}

}  // namespace seer::cli
