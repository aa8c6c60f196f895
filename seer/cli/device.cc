#include "seer/cli/device.h"

#include <cstdlib>

#include "seer/base/error.h"
#include "seer/base/shown.h"

namespace seer::cli {
namespace {

constexpr const char* kForms = "auto, cpu, cuda or cuda:N";
constexpr std::string_view kNumbered = "cuda:";

// A number that torchrun sets; `missing` where it did not start this process.
int64_t from_environment(const char* name, int64_t missing) {
  const char* text = std::getenv(name);
  if (text == nullptr) return missing;
  const auto number = read_number(text, Kind::whole);
  SEER_CHECK(number && *number >= 0 && *number < (1 << 20), name, " is ", shown(text),
             ", want a number: torchrun sets it");
  return number->get<int64_t>();
}

std::optional<int64_t> number_of(const std::string& name) {
  if (!name.starts_with(kNumbered)) return std::nullopt;
  const auto number = read_number(name.substr(kNumbered.size()), Kind::whole);
  if (!number || *number < 0 || *number > 127) return std::nullopt;
  return number->get<int64_t>();
}

at::Device gpu(int64_t index) {
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

at::Device own_gpu(int gpus) {
  const int64_t index = from_environment("LOCAL_RANK", 0);
  SEER_CHECK(index < gpus, "LOCAL_RANK is ", index, ", but this machine has ", counted(gpus, "GPU"),
             ": start fewer processes on it");
  return gpu(index);
}

}  // namespace

Allowed device_names() {
  Allowed allowed;
  allowed.wants = [](const std::string& name) {
    if (name == "auto" || name == "cpu" || name == "cuda" || number_of(name)) return std::string();
    return kForms + did_you_mean(name, {"auto", "cpu", "cuda", "cuda:0"});
  };
  return allowed;
}

at::Device resolve_device(const std::string& name, int gpus,
                          const std::function<bool()>& gpu_runs_all) {
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return gpus > 0 && gpu_runs_all() ? own_gpu(gpus) : at::Device(at::kCPU);
  if (gpus == 0) {
    throw UsageError("--device " + name +
                     ": this build has no kernels for a GPU, or torch sees none here; choose cpu");
  }
  if (name == "cuda") return own_gpu(gpus);
  const int64_t index = number_of(name).value();
  if (index >= gpus) {
    throw UsageError(message("--device ", name, ": this machine has ", counted(gpus, "GPU"),
                             ", from cuda:0 to cuda:", gpus - 1));
  }
  if (from_environment("LOCAL_WORLD_SIZE", 1) > 1) {
    throw UsageError(
        "--device " + name +
        ": all processes of this machine would share it; with cuda each takes its own");
  }
  return gpu(index);
}

}  // namespace seer::cli
