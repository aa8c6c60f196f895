#pragma once
// --device of all verbs.

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "seer/base/allowed.h"

namespace seer::cli {

// auto, cpu, cuda, cuda:N
Allowed device_names();

// cpu; cuda: the GPU of this process, as torchrun numbers those of a machine; cuda:N; auto: that GPU where
// `gpu_runs_all` says that it runs all that is needed, else the CPU. `gpus`: how many there are.
// UsageError: there is no such GPU, or processes of one machine would share one.
at::Device resolve_device(const std::string& name, int gpus,
                          const std::function<bool()>& gpu_runs_all);

}  // namespace seer::cli
