#pragma once
// Pretraining of a small language model from scratch.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
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
  double until;
  int64_t length;
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
  std::vector<int64_t> lengths{2048, 8192};  // tokens of a window, in stages
  std::vector<double> stage_ends{0.48};      // shares of the steps, of all stages but the last
  int64_t tokens_per_step = 131072;          // a multiple of every length
  int64_t micro_batch_tokens =
      0;  // that fit into memory at once; 0: a step on CUDA, 4096 on the CPU
  int64_t valid_tokens = 262144;       // of each held-out file
  double matrix_learning_rate = 0.02;  // Muon: matrices of the layers
  double other_learning_rate = 0.004;  // AdamW: embedding, head, norms, biases
  Muon muon;
  AdamW adamw{0.9, 0.95, 1e-8, 0};
  Schedule schedule{Schedule::Form::linear, -1, 0.5, 0.02, 100};
  uint64_t seed = 1;
  at::Device device = at::kCPU;
  // Type of weights and activations; bf16 keeps f32 master weights. Undefined: bf16 on CUDA, else
  // f32.
  at::ScalarType dtype = at::ScalarType::Undefined;
  // CUDA: an attention backward with fixed order of its sums. Slower; without it a resumed run
  // differs from an uninterrupted one by rounding. The CPU is always deterministic.
  bool deterministic = false;
};

template <class Visit>
void each_setting(ModelSizes& s, const Visit& visit) {
  visit("hidden", s.hidden, range(1, limits::kHidden), "size of the residual stream");
  visit("layers", s.layers, range(1, limits::kLayers), "layers");
  visit("heads", s.heads, range(1, limits::kHeads), "query heads, a multiple of --kv-heads");
  visit("kv-heads", s.kv_heads, range(1, limits::kHeads), "key heads");
  visit("head-dim", s.head_dim, multiple(2, 2, limits::kHeadDim), "head size");
  visit("intermediate", s.intermediate, range(1, limits::kHidden), "size of the gated MLP");
  visit("rope-theta", s.rope_theta, above(1, limits::kRopeNumber), "base of RoPE");
}
template <class Visit>
void each_setting(PretrainSettings& s, const Visit& visit) {
  visit("lengths", s.lengths, repeated(range(2, limits::kTokens)), "tokens of a window, in stages");
  Allowed share = above(0, 1);
  share.without_most = true;
  visit("stage-ends", s.stage_ends, share,
        "share of the steps at which each stage but the last ends");
  visit("tokens-per-step", s.tokens_per_step, range(2, limits::kStepTokens),
        "a multiple of every length");
  visit("micro-batch-tokens", s.micro_batch_tokens, range(0, limits::kStepTokens),
        "tokens in memory at once; 0: a step on a GPU, 4096 on a CPU");
  visit("valid-tokens", s.valid_tokens, range(1, limits::kStepTokens), "of each held-out text");
  visit("matrix-learning-rate", s.matrix_learning_rate, above(0, 100),
        "of Muon: matrices of the layers");
  visit("other-learning-rate", s.other_learning_rate, above(0, 100),
        "of AdamW: embedding and norms");
  visit("warmup", s.schedule.warmup, warmup_range(),
        "steps of warm-up; -1: 100, at most a sixth of all");
  visit("constant-share", s.schedule.constant_share, range(0, 1),
        "share of the steps after which the learning rate falls");
  visit("final-share", s.schedule.floor, range(0, 1), "share of the learning rate at the end");
  visit("deterministic", s.deterministic, {}, "GPU: the same bits at every run; slower");
  visit("seed", s.seed, at_least(0), "of weights and data");
}
// UsageError where a value is not allowed, or values do not fit each other.
void check(const PretrainSettings& settings);
// The lengths with the shares at which they end; the last one ends at 1.
std::vector<LengthStage> stages_of(const PretrainSettings& settings);

// Trains, resumes, and writes the model (weights bf16) into loop.out. Metrics: loss (nats per
// token); valid_<file>: the same on held-out text, in windows of the current stage. Error: as
// run(); data with fewer tokens than a window; sizes that do not fit.
RunResult pretrain(const PretrainSettings& settings);

}  // namespace seer::train
