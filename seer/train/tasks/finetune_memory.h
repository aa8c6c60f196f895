#pragma once
// What a run of fine-tuning takes of memory, and what to lower where that is too much.

#include <functional>

#include "seer/io/model_config.h"
#include "seer/train/loop/plan.h"
#include "seer/train/tasks/finetune.h"

namespace seer::train {

// Of one process.
Plan finetune_plan(const io::ModelConfig& model, const FinetuneSettings& settings);

// Error: it is more than the device and the host have free.
void check_memory(const io::ModelConfig& model, const FinetuneSettings& settings);

// What `work` returns. Error: memory is full meanwhile.
RunResult within_memory(const FinetuneSettings& settings, const std::function<RunResult()>& work);

}  // namespace seer::train
