#pragma once
// Distillation of gates from a frozen model's own attention maps (arXiv 2410.13276 v4, section
// 3.2).

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "seer/io/gate_file.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/train/data/data.h"
#include "seer/train/loop/loop.h"
#include "seer/train/tasks/lookup_heads.h"

namespace seer::train {

struct DistillSettings {
  DistillSettings() { loop.save_every = 50; }
  LoopSettings loop;  // 500 steps, clip 1; loop.out also gets the gates
  DataSettings data;
  std::filesystem::path tokenizer;  // folder with tokenizer.json: token files are kept for it
  io::GateConfig gate;
  // Folder of gates that get lookup heads, and else stay as they are; empty: new gates.
  std::filesystem::path gates;
  bool foreign_gates = false;  // takes them though they are of another model
  int64_t sequences = 16;      // of a step
  int64_t length = 65536;      // tokens of a sequence
  int64_t micro_batch = 1;     // sequences that are run at once
  // Of a streamed model all micro-batches pass through a layer before the next begins, so that a layer
  // travels once a step. Between layers hidden states wait on the device, or in host memory where
  // there are too many: 2 bytes x tokens of a step x hidden size, each batch rounded up to a power
  // of 2.
  bool states_on_host = false;
  int64_t valid_sequences = 4;  // of each held-out file
  std::string loss = "kl";      // "kl", or "mse" as in version 1 of the paper
  double skip = -1;        // share of the first block rows without loss; -1: 1/4 for kl, 0 for mse
  double loss_scale = 10;  // of the sum over layers
  double learning_rate = 1e-3;
  AdamW adamw;
  Schedule schedule;             // cosine to 0
  LookupSettings lookup;         // found after the gates are trained, which then stay as they are
  uint64_t seed = 1;             // of the gates' first weights and of the order of the data
  bool profile = false;          // fill in DistillResult's times
  bool warns_of_context = true;  // where sequences are longer than it; false: the caller has
};

template <class Visit>
void each_setting(DistillSettings& s, const Visit& visit) {
  visit("length", s.length, range(2, limits::kTokens), "tokens of a sequence");
  visit("sequences", s.sequences, range(1, limits::kSequences), "sequences of a step");
  visit("micro-batch", s.micro_batch, range(1, limits::kSequences),
        "sequences that are run at once");
  visit("states-on-host", s.states_on_host, {},
        "with --stream: hidden states wait in host memory between layers");
  visit("valid-sequences", s.valid_sequences, range(1, limits::kSequences),
        "sequences of each held-out text");
  visit("loss", s.loss, one_of({"kl", "mse"}), "mse: that of the paper's first version");
  visit("skip", s.skip, or_automatic(below(0, 1), -1),
        "share of the first block rows without loss; -1: 1/4 for kl, 0 for mse");
  visit("loss-scale", s.loss_scale, above(0, 1e9), "factor of the loss summed over layers");
  visit("learning-rate", s.learning_rate, above(0, 100), "largest learning rate of AdamW");
  visit("warmup", s.schedule.warmup, warmup_range(),
        "steps of warm-up, then cosine to 0; -1: 20, at most a sixth of all");
  visit("weight-decay", s.adamw.weight_decay, range(0, 100), "of AdamW, decoupled");
  visit("seed", s.seed, at_least(0), "of the gates' first weights and the order of the data");
  each_setting(s.lookup, visit);
}
// UsageError where a value is not allowed, or nothing would be trained.
void check(const DistillSettings& settings);
// The same, and Error where gates or lookup heads do not fit the model; `gate` is that of given gates.
void check(const DistillSettings& settings, const io::ModelConfig& model);

struct DistillResult : RunResult {
  // With DistillSettings::profile, of this process's part of the run, on the model's device: dense
  // attention with the map, and gates with their loss and gradients. The rest is the model's.
  double attention_seconds = 0, gate_seconds = 0;
  std::optional<RunResult> lookup;
};

// Trains new gates for `model`, resumes, and writes them into loop.out. With lookup heads a second run follows in
// loop.out/lookup, whose results are `lookup` (where none can be found and none were asked for, a line says why): the heads are found, their projections trained where that has steps, and heads.json says what
// each head lost. With DistillSettings::gates only the second run takes place, in loop.out. Metrics: loss (scaled, as
// published); kl_per_row (nats; mean over layers, heads and rows: comparable between lengths), for
// "kl" only; valid_<metric>_<file> on held-out text. Layers whose sliding window hides keys have no
// gate loss. Error: as run(), and before any training where the second run could not go on, or loop.out has lookup heads
// that would be lost; data with fewer tokens than a sequence; a loss that is not known. Interrupted: as run(), and while
// heads are looked for.
DistillResult distill(const models::Decoder& model, const io::Tokenizer& tokenizer,
                      const DistillSettings& settings);
// The same on one text that is in memory; data.train is not looked at.
DistillResult distill(const models::Decoder& model, std::vector<int32_t> tokens,
                      const io::Tokenizer& tokenizer, const DistillSettings& settings);

}  // namespace seer::train
