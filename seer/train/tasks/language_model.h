#pragma once
// A language model that is trained as a whole: its weights as parameters, the loss of next tokens, and the
// folder that is saved.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/models/attention.h"
#include "seer/models/decoder.h"
#include "seer/train/loop/parameters.h"
#include "seer/train/tasks/checkpointed.h"

namespace seer::train {

class LanguageModel {
 public:
  // Leaves of `dtype`, in which the model computes, on `device` begin as `weights`, each of which is let go
  // as soon as it is copied.
  LanguageModel(const io::ModelConfig& config, models::ModelWeights weights, at::ScalarType dtype,
                const at::Device& device);

  const io::ModelConfig& config() const { return decoder_.config(); }
  const models::Decoder& decoder() const { return decoder_; }
  // (name, leaf) of every weight, tied heads once.
  std::vector<std::pair<std::string, at::Tensor>> weights() const;
  // The same for the loop. What leaves cannot hold is given away: to be called once.
  std::vector<Parameter> parameters();
  // Muon for the matrices of the layers, AdamW for the rest: "matrices" and "others".
  struct MatrixRates {
    Muon muon;
    AdamW adamw;
    double matrices, others;
  };
  std::vector<ParameterGroup> muon_groups(const MatrixRates& rates, const Schedule& schedule);
  // Whether Muon takes it.
  static bool is_matrix(const std::string& name, const at::Tensor& weight);

  // ids int64 [windows, length + 1] -> mean negative log-likelihood (nats) of each window's tokens
  // behind the first, [] f32.
  at::Tensor loss(const at::Tensor& ids, const models::Attention& attention) const;
  // The leaves of a part as PassWatch::complete counts them.
  std::vector<at::Tensor> part(int part) const;

  // Estimate in bytes: what layers keep for the gradient of `tokens`.
  double activation_bytes(int64_t tokens) const;

  // The model in Hugging Face form, bf16, with the tokenizer's files. config.json comes last: a
  // folder that has one is complete. Error: it cannot be read as it was written.
  void save(const std::filesystem::path& folder, const nlohmann::json& config_json,
            const std::filesystem::path& tokenizer) const;
  // Names of the files that save() writes.
  static std::vector<std::string> files(const std::filesystem::path& tokenizer);

 private:
  std::vector<at::Tensor> initial_;  // of each of weights(); undefined: as its leaf has it
  models::Decoder decoder_;

  models::ModelWeights leaves(models::ModelWeights weights, const io::ModelConfig& config,
                              at::ScalarType dtype, const at::Device& device);
};

// Which of torch's attention kernels trains on a GPU. `deterministic`: sums in a fixed order, slower.
void order_attention_kernels(bool deterministic);

}  // namespace seer::train
