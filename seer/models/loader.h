#pragma once
// Model folders in Hugging Face form: weights from mapped safetensors files, and back.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "seer/io/model_config.h"
#include "seer/io/safetensors.h"
#include "seer/models/decoder.h"
#include "seer/models/fingerprint.h"

namespace seer::models {

// The weights that `config` describes, from model.safetensors or, where there is none, from the
// files of model.safetensors.index.json. A weight stays on the mapped pages, read-only, when
// `dtype` and `device` are the file's (fused ones as views of the fused tensor); otherwise it is
// converted one at a time. `dtype` Undefined: each has the type of its file.
// Error, with file and tensor: missing or truncated files, a tensor missing, of another shape or
// not of f32, bf16, f16, a NaN or infinite value, a weight in a layer that config.json does not account
// for. Tensors elsewhere that nothing needs are left out with a warning, buffers without. A stored head
// that differs from the embedding is kept, with a warning, although config.json ties them.
// Layers go to `layer_device`, the rest to `device`. `fingerprint` gets all of them, as stored.
ModelWeights load_weights(const std::filesystem::path& folder, const io::ModelConfig& config,
                          at::ScalarType dtype, const at::Device& device,
                          const at::Device& layer_device, Fingerprint& fingerprint);

// Writes folder/model.safetensors in the weights' own type, then folder/config.json = `config`,
// each atomically: a folder with a config.json is complete. `config` must describe the weights;
// families with fused weights are written fused.
void save_model(const std::filesystem::path& folder, const nlohmann::json& config,
                const ModelWeights& weights);

// A tensor on the memory of a file: mapped where type and device are the file's, converted
// otherwise.
// Error: the tensor is missing, of another shape (expected and found), of a type that is not f32,
// bf16 or f16, or holds a NaN or an infinite value.
at::Tensor load_tensor(const io::SafetensorsFile& file, const std::string& name,
                       at::IntArrayRef shape, at::ScalarType dtype, const at::Device& device);

// The same in the file's own type.
at::Tensor mapped_tensor(const io::SafetensorsFile& file, const std::string& name,
                         at::IntArrayRef shape);

// A record of a contiguous CPU tensor, for write_safetensors; valid as long as the tensor is.
io::NamedTensor tensor_record(const std::string& name, const at::Tensor& tensor);

}  // namespace seer::models
