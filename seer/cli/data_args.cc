#include "seer/cli/data_args.h"

#include <cmath>
#include <cstdio>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/io/text.h"

namespace seer::cli {

void add_data(Args& args, train::DataSettings& settings) {
  args.group("Data");
  args.add_each(settings);
  args.require("data");
  args.group("");
  args.when_read([&settings] {
    check(settings);
    for (const auto* files : {&settings.train, &settings.valid}) {
      for (const auto& path : *files) io::check_text_file(path);
    }
    check_folder_of("cache", settings.cache);
  });
}

void add_loop(Args& args, train::LoopSettings& settings) {
  args.group("Run");
  args.output_folder("out", settings.out,
                     "folder of the run and its result; the same folder again resumes it")
      ->required();
  args.add_each(settings);
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

void print_result(const char* verb, const train::RunResult& result,
                  const std::filesystem::path& out) {
  std::printf("seer %s: %s, %s tokens in %s, loss %.4f", verb,
              counted(result.steps, "step").c_str(),
              count_text(static_cast<double>(result.tokens)).c_str(),
              duration_text(result.seconds).c_str(), result.loss);
  for (const auto& [name, value] : result.valid)
    std::printf(", %s %.4f", one_line(name, 300).c_str(), value);
  if (result.skipped_steps > 0) {
    std::printf(", %s skipped", counted(result.skipped_steps, "step").c_str());
  }
  if (result.skipped_documents > 0) {
    std::printf(", %s skipped", counted(result.skipped_documents, "document").c_str());
  }
  std::puts("");
  print_line("written: " + out.string(), stdout);
}

}  // namespace seer::cli
