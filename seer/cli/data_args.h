#pragma once
// Settings of training that pretrain and distill share.

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "seer/cli/args.h"
#include "seer/train/data/data.h"
#include "seer/train/loop/loop.h"
#include "seer/train/ranks/ranks.h"

namespace seer::cli {

struct DataArgs {
  std::vector<std::string> data, valid;
  std::vector<double> weights;
  void add(Args& args, train::DataSettings& settings);
  // Fills the files of `settings`.
  void fill(train::DataSettings& settings) const;

 private:
  std::string cache_ = ".cache/seer";
};

struct LoopArgs {
  std::string out;
  void add(Args& args, train::LoopSettings& settings);
};

// The processes that torchrun starts.
struct RankArgs {
  void add(Args& args);
  // Waits for all of them.
  std::unique_ptr<train::Ranks> start(const at::Device& device) const;

 private:
  double heartbeat_ = std::chrono::duration<double>(train::Ranks::kSilence).count();
};

// The last line of a training verb.
void print_result(const char* verb, const train::RunResult& result, const std::string& out);

}  // namespace seer::cli
