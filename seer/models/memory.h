#pragma once
// What a model takes of a device's memory, for what is said or refused before long work. Estimates: the
// large tensors are counted, the small ones are not.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "seer/io/model_config.h"

namespace seer::models {

double weight_bytes(const io::ModelConfig& config, at::ScalarType dtype);
// Keys and values of all layers.
double cache_bytes(const io::ModelConfig& config, int64_t tokens, at::ScalarType dtype);
// The most that a forward pass over `tokens` tokens holds at once beside weights and cache, with scores
// of blocks where `block` is not 0.
double pass_bytes(const io::ModelConfig& config, int64_t tokens, int64_t block,
                  at::ScalarType dtype);

// Bytes that this process can still take: of a GPU, what is free there; of the host, what the system
// counts as available, within the limit of its control group. 0: not known.
double available_bytes(const c10::Device& device);

// Whose memory is full, where that is what an error of torch or of the standard library says.
std::optional<c10::DeviceType> full_memory(const std::exception& error);

// "3.2 GiB", "850 MiB".
std::string bytes_text(double bytes);

}  // namespace seer::models
