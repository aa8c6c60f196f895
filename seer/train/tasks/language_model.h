#pragma once
// A language model that is trained as a whole: f32 master weights, copies of them in the type that the
// model computes in, the loss of next tokens, and the folder that is saved.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/models/attention.h"
#include "seer/models/decoder.h"
#include "seer/train/tasks/checkpointed.h"

namespace seer::train {

class LanguageModel {
 public:
  // `weights`: f32; they become leaves on `device`. `dtype`: of computation.
  LanguageModel(const io::ModelConfig& config, models::ModelWeights weights, at::ScalarType dtype,
                const at::Device& device);

  const io::ModelConfig& config() const { return decoder_.config(); }
  // What computes, in `dtype`.
  const models::Decoder& decoder() const { return decoder_; }
  // (name, f32 leaf) of every weight, tied heads once.
  std::vector<std::pair<std::string, at::Tensor>> parameters() const;
  // Copies the masters to the weights that compute: to be called when they have changed.
  void refresh();
  // ids int64 [windows, length + 1] -> mean negative log-likelihood (nats) of each window's tokens
  // behind the first, [] f32.
  at::Tensor loss(const at::Tensor& ids, const models::Attention& attention) const;
  // Adds the gradient of a loss to the masters' .grad.
  void backward(const at::Tensor& loss);
  // checkpointed_backward() to the masters' .grad. `complete` (may be empty): a master has its
  // gradient; `layer_done` (may be empty): all masters of a layer have.
  at::Tensor checkpointed(const TokenBatch& batch, double share, const LayerRuns& runs,
                          const std::function<void(const at::Tensor& master)>& complete,
                          const std::function<void(int layer)>& layer_done,
                          const std::function<void(int64_t done, int64_t all)>& passed);

  // Estimates in bytes: copies with their gradients; what layers keep for the gradient of `tokens`.
  double copy_bytes() const;
  double activation_bytes(int64_t tokens) const;

  // The model in Hugging Face form, bf16, with the tokenizer's files. config.json comes last: a
  // folder that has one is complete. Error: it cannot be read as it was written.
  void save(const std::filesystem::path& folder, const nlohmann::json& config_json,
            const std::filesystem::path& tokenizer) const;
  // Names of the files that save() writes.
  static std::vector<std::string> files(const std::filesystem::path& tokenizer);

 private:
  models::ModelWeights masters_;
  std::vector<at::Tensor> originals_, copies_;  // masters and their copies; f32 has none
  models::Decoder decoder_;

  models::ModelWeights computing(at::ScalarType dtype, const at::Device& device);
  // Moves the gradients that copies have to the masters.
  void collect();
};

// Which of torch's attention kernels trains on a GPU. `deterministic`: sums in a fixed order, slower.
void order_attention_kernels(bool deterministic);

}  // namespace seer::train
