#include "seer/train/loop/checkpoint.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/io/safetensors.h"

namespace seer::train {
namespace {

using nlohmann::json;

json to_json(const RunState& state) {
  return {{"step", state.step},
          {"tokens", state.tokens},
          {"skipped", state.skipped_steps},
          {"skipped_in_row", state.skipped_in_row},
          {"loss", state.loss},
          {"seconds", state.seconds},
          {"valid", state.valid},
          {"validation_due", state.validation_due}};
}

// JSON has no NaN: null stands for it.
double number_of(const JsonNode& node) {
  constexpr double kLargest = std::numeric_limits<double>::max();
  return node.is_null() ? std::nan("") : node.number(-kLargest, kLargest);
}

RunState state_of(const std::string& text) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  std::string problem;
  const json parsed = parse_json(text, &problem);
  SEER_CHECK(problem.empty(), "its state ", problem);
  const JsonNode state(parsed, "its state");
  RunState read;
  read.step = state.at("step").integer(0, kMost);
  read.tokens = state.at("tokens").integer(0, kMost);
  read.skipped_steps = state.at("skipped").integer(0, kMost);
  read.skipped_in_row = state.at("skipped_in_row").integer(0, kMost);
  read.seconds = state.at("seconds").number(0, std::numeric_limits<double>::max());
  read.validation_due = state.at("validation_due").boolean();
  read.loss = number_of(state.at("loss"));
  const JsonNode valid = state.at("valid");
  SEER_CHECK(valid.is_object(), valid.where(), " is no object");
  for (const auto& [name, value] : valid.json().items()) {
    read.valid[name] = number_of(valid.at(name));
  }
  return read;
}

bool is_finite(const at::Tensor& tensor) {
  return at::isfinite(tensor).all().item<bool>();
}

// The record's memory as a tensor; it lives as long as the file.
at::Tensor stored(const io::SafetensorsFile& file, const std::string& name,
                  const at::Tensor& like) {
  SEER_CHECK(file.contains(name), "it has no tensor ", name);
  const auto& record = file.at(name);
  SEER_CHECK(record.dtype == "F32" && record.shape == like.sizes().vec(), "its tensor ", name,
             " is ", record.dtype, " ", at::IntArrayRef(record.shape), ", want F32 ", like.sizes());
  const at::Tensor tensor =
      at::from_blob(const_cast<std::byte*>(record.data), record.shape, at::kFloat);
  SEER_CHECK(is_finite(tensor), "its tensor ", name, " holds NaN or an infinite value");
  return tensor;
}

std::string metadata_of(const io::SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const std::string& run,
                      const NamedTensors& tensors, const RunState& state, const Fetch& fetch) {
  std::vector<io::NamedTensor> records;
  for (const auto& [name, tensor] : tensors) {
    SEER_CHECK(tensor.scalar_type() == at::kFloat, "tensor ", name, " of a checkpoint is not f32");
    records.push_back({name, {"F32", tensor.sizes().vec(), nullptr, tensor.nbytes()}});
  }
  at::Tensor copy;  // keeps the memory that is being written
  const auto bytes_of = [&](size_t i) {
    const auto& [name, tensor] = tensors[i];
    copy = (fetch ? fetch(i) : tensor).detach().to(at::kCPU).contiguous();
    SEER_CHECK(is_finite(copy), "after step ", state.step, " ", name,
               " holds NaN or an infinite value; this is not saved: lower the learning rate, or "
               "look for broken data");
    return static_cast<const std::byte*>(copy.const_data_ptr());
  };
  io::write_safetensors(path, records, {{"run", run}, {"state", json_text(to_json(state))}},
                        /*with_checksum=*/true, bytes_of);
}

std::string read_checkpoint(const std::filesystem::path& path, const std::string& run, int64_t step,
                            const NamedTensors& tensors, RunState* state) {
  try {
    const io::SafetensorsFile file(path);
    file.check_sum();
    SEER_CHECK(metadata_of(file, "run") == run, "it is of another run");
    const RunState read = state_of(metadata_of(file, "state"));
    SEER_CHECK(read.step == step, "it is of step ", read.step, ", not of step ", step);
    SEER_CHECK(file.tensors().size() == tensors.size(), "it has ", file.tensors().size(),
               " tensors, want ", tensors.size());
    std::vector<at::Tensor> values;
    for (const auto& [name, tensor] : tensors) values.push_back(stored(file, name, tensor));
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!tensors[i].second.is_meta()) tensors[i].second.copy_(values[i]);
    }
    *state = read;
    return "";
  } catch (const io::BadSafetensors& error) {
    return error.reason;
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace seer::train
