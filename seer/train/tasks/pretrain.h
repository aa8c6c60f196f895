#pragma once
// Pretraining of a small language model from scratch.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "seer/train/data/data.h"
#include "seer/train/loop/loop.h"

namespace seer::train {

// A Llama of these sizes, where no config.json is given. The defaults are 7.6 M weights with a
// vocabulary of 8192.
struct ModelSizes {
  int64_t hidden = 256, layers = 8, heads = 4, kv_heads = 2, head_dim = 64, intermediate = 640;
  double rope_theta = 500000, rms_norm_eps = 1e-5;
};

// Windows of `length` tokens until this share of the steps is done.
struct LengthStage {
  double until = 1;
  int64_t length = 8192;
};

struct PretrainSettings {
  PretrainSettings() {
    loop.steps = 8000;
    loop.clip = 0;
    loop.valid_every = 500;
    data.synthetic_share = 0.2;
  }
  LoopSettings
      loop;  // loop.out also gets the model: config.json, model.safetensors, tokenizer files
  DataSettings data;
  std::filesystem::path tokenizer;     // folder with tokenizer.json
  std::filesystem::path model_config;  // a config.json; empty: `sizes`
  ModelSizes sizes;
  std::vector<LengthStage> stages = {{0.48, 2048}, {1, 8192}};  // the last one until 1
  int64_t tokens_per_step = 131072;  // a multiple of every stage's length
  int64_t micro_batch_tokens =
      0;  // that fit into memory at once; 0: a step on CUDA, 4096 on the CPU
  int64_t valid_tokens = 262144;       // of each held-out file
  double matrix_learning_rate = 0.02;  // Muon: matrices of the layers
  double other_learning_rate = 0.004;  // AdamW: embedding, head, norms, biases
  Muon muon;
  AdamW adamw{0.9, 0.95, 1e-8, 0};
  Schedule schedule{Schedule::Form::linear, std::nullopt, 0.5, 0.02, 100};
  uint64_t seed = 1;
  at::Device device = at::kCPU;
  // Type of weights and activations; bf16 keeps f32 master weights. Undefined: bf16 on CUDA, else
  // f32.
  at::ScalarType dtype = at::ScalarType::Undefined;
  // CUDA: an attention backward with fixed order of its sums. Slower; without it a resumed run
  // differs from an uninterrupted one by rounding. The CPU is always deterministic.
  bool deterministic = false;
};

// UsageError where a value is outside of its range.
void check(const PretrainSettings& settings);

// Trains, resumes, and writes the model (weights bf16) into loop.out. Metrics: loss (nats per
// token); valid_<file>: the same on held-out text, in windows of the current stage. Error: as
// run(); data with fewer tokens than a window; sizes that do not fit.
RunResult pretrain(const PretrainSettings& settings);

}  // namespace seer::train
