#pragma once
// Fine-tuning of all weights of a model at a longer context, stretched by YaRN, with dense or block-sparse
// attention; gates are trained along with the latter (arXiv 2410.13276 v1, section 4.4).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "seer/io/gate_file.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/torch/ops.h"
#include "seer/train/data/data.h"
#include "seer/train/loop/loop.h"

namespace seer::train {

struct FinetuneSettings {
  FinetuneSettings() {
    loop.steps = 400;
    loop.save_every = 50;
    schedule.form = Schedule::Form::linear;
  }
  LoopSettings loop;  // loop.out also gets the model, and its gates in loop.out/gates
  DataSettings data;
  std::filesystem::path model;       // folder in Hugging Face form, with its tokenizer
  double yarn_factor = 1;            // of the model's original length; 1: RoPE as it is
  std::string attention = "sparse";  // or "dense", which trains no gates
  std::string rule = kernels::kDefaultSelectRule;
  double density = 0.1;  // share of causal blocks that is kept, of rules that take one
  double strength = 0;   // of other rules; 0: not given
  int64_t sink_blocks = 0, local_blocks = 0, last_dense_rows = 0;
  std::filesystem::path gates;   // folder of the model's gates to begin with; empty: new ones
  bool foreign_gates = false;    // takes gates of another model
  io::GateConfig gate;           // of new gates
  std::string gate_loss = "kl";  // or "mse", as in version 1 of the paper
  double gate_skip = -1;  // share of the first block rows without loss; -1: 1/4 for kl, 0 for mse
  double gate_loss_weight = 10;      // of the sum over layers
  int64_t gate_every = 1;            // steps; gates get a gradient in every such step
  std::string documents = "window";  // or "packed": they do not attend to each other
  int64_t sequences = 8;             // windows of a step
  int64_t length = 32768;            // tokens of a window
  int64_t micro_batch = 1;           // windows that are run at once
  int64_t valid_sequences = 4;       // windows of each held-out file
  std::string optimizer = "adamw";   // or "muon": of the matrices of the layers, AdamW of the rest
  double learning_rate = 1e-5, matrix_learning_rate = 4e-3, gate_learning_rate = 1.5e-3;
  AdamW adamw;
  Muon muon;
  std::string schedule_form = "linear";  // or "cosine"; goes before schedule.form
  Schedule schedule;
  uint64_t seed = 1;  // of new gates and the order of the data
  at::Device device = at::kCPU;
  // Type of weights and activations, f32 or bf16, which has f32 master weights. Undefined: bf16 on CUDA,
  // else f32.
  at::ScalarType dtype = at::ScalarType::Undefined;
  bool deterministic = false;  // as PretrainSettings has it

  bool is_sparse() const { return attention == "sparse"; }
  bool is_muon() const { return optimizer == "muon"; }
  at::ScalarType computes_in() const {
    if (dtype != at::ScalarType::Undefined) return dtype;
    return device.is_cuda() ? at::kBFloat16 : at::kFloat;
  }
  bool is_by_density() const { return kernels::select_rule(rule).takes_share(); }
};

inline constexpr int64_t kMostForcedBlocks = int64_t{1} << 24;  // as many as block_select takes

template <class Visit>
void each_setting(FinetuneSettings& s, const Visit& visit) {
  visit("yarn-factor", s.yarn_factor, range(1, 1024),
        "YaRN's factor of the model's original length; 1: RoPE as it is");
  visit("length", s.length, range(2, limits::kTokens), "tokens of a window");
  visit("sequences", s.sequences, range(1, limits::kSequences), "windows of a step");
  visit("micro-batch", s.micro_batch, range(1, limits::kSequences), "windows that are run at once");
  visit("documents", s.documents, one_of({"window", "packed"}),
        "packed: documents of a window do not attend to each other");
  visit("valid-sequences", s.valid_sequences, range(1, limits::kSequences),
        "windows of each held-out text");
  visit("attention", s.attention, one_of({"sparse", "dense"}), "dense trains no gates");
  visit("rule", s.rule, one_of(kernels::select_rule_names()),
        "what limits the blocks: row_budget tokens per row, head_budget a share per head");
  const auto by_share = kernels::select_rule_names([](const auto& r) { return r.takes_share(); });
  visit("density", s.density, above(0, 1),
        "share of causal blocks that is kept, for the rule " + listed(by_share));
  visit("strength", s.strength, range(0, limits::kTokens),
        "for the others: softmax threshold, kept mass (top_p), tokens (row_budget)");
  const Allowed blocks = range(0, kMostForcedBlocks);
  visit("sink-blocks", s.sink_blocks, blocks, "first blocks always kept");
  visit("local-blocks", s.local_blocks, blocks, "blocks before the diagonal always kept");
  visit("last-dense-rows", s.last_dense_rows, blocks, "last block rows that see everything");
  visit("gate-loss", s.gate_loss, one_of({"kl", "mse"}), "mse: that of the paper's first version");
  visit("gate-skip", s.gate_skip, or_automatic(below(0, 1), -1),
        "share of the first block rows without gate loss; -1: 1/4 for kl, 0 for mse");
  visit("gate-loss-weight", s.gate_loss_weight, above(0, 1e9),
        "factor of the gate loss summed over layers");
  visit("gate-every", s.gate_every, range(1, limits::kSteps),
        "gates get a gradient in every such step");
  visit("optimizer", s.optimizer, one_of({"adamw", "muon"}),
        "muon: of the matrices of the layers, AdamW of the rest");
  visit("learning-rate", s.learning_rate, above(0, 100),
        "largest learning rate of AdamW for the model");
  visit("matrix-learning-rate", s.matrix_learning_rate, above(0, 100),
        "largest learning rate of Muon");
  visit("gate-learning-rate", s.gate_learning_rate, above(0, 100),
        "largest learning rate of the gates");
  visit("schedule", s.schedule_form, one_of({"linear", "cosine"}),
        "how learning rates fall after the warm-up");
  visit("warmup", s.schedule.warmup, warmup_range(),
        "steps of warm-up; -1: 20, at most a sixth of all");
  visit("final-share", s.schedule.floor, range(0, 1), "share of the learning rate at the end");
  visit("weight-decay", s.adamw.weight_decay, range(0, 100), "of AdamW, decoupled");
  visit("states-on-host", s.loop.states_on_host, {},
        "GPU: f32 weights and optimizer states in host memory; slower");
  visit("deterministic", s.deterministic, {}, "GPU: the same bits at every run; slower");
  visit("seed", s.seed, at_least(0), "of new gates and the order of the data");
}
// UsageError where a value is not allowed, or values do not fit each other.
void check(const FinetuneSettings& settings);

// Trains, resumes, and writes the model (weights bf16) into loop.out, its gates into loop.out/gates.
// Layers keep their input only (checkpointed.h). Metrics: loss (nats per token); gate_loss (weighted, as it is added; NaN in steps without);
// valid_<file>: the loss on whole windows of held-out text, with the attention that is trained. Rules are
// as published: what is forced, the diagonal too, is added to the best blocks. Where gates get no
// gradient, AdamW's momentum moves them on.
// Error: as run(); windows longer than the model's context, stretched; RoPE that YaRN does not
// stretch; gates of another model; more memory than there is; data with fewer tokens than a window.
RunResult finetune(const FinetuneSettings& settings);
// The same of a model and one text in memory; settings.model and data.train are not looked at, and the
// result is not kept (settings.loop.keeps is false).
RunResult finetune(models::Decoder base, std::vector<int32_t> tokens,
                   const io::Tokenizer& tokenizer, const FinetuneSettings& settings);

}  // namespace seer::train
