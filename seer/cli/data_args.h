#pragma once
// Settings of training that pretrain and distill share.

#include <chrono>
#include <memory>

#include "seer/cli/args.h"
#include "seer/train/data/data.h"
#include "seer/train/loop/loop.h"
#include "seer/train/ranks/ranks.h"

namespace seer::cli {

void add_data(Args& args, train::DataSettings& settings);
void add_loop(Args& args, train::LoopSettings& settings);

// The processes that torchrun starts.
struct RankArgs {
  void add(Args& args);
  // Waits for all of them.
  std::unique_ptr<train::Ranks> start(const at::Device& device) const;

 private:
  double heartbeat_ = std::chrono::duration<double>(train::Ranks::kSilence).count();
};

// The last line of a training verb.
void print_result(const char* verb, const train::RunResult& result,
                  const std::filesystem::path& out);

}  // namespace seer::cli
