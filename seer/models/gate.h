#pragma once
// The gates of a model: weights of every layer, and scores of key blocks from a layer's q and k.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "seer/io/gate_file.h"
#include "seer/models/attention.h"
#include "seer/models/decoder.h"
#include "seer/torch/ops.h"

namespace seer::models {

struct GateWeights {
  at::Tensor q;  // [Hq, D * pools_q, d] f32; undefined in the single form
  at::Tensor k;  // [Hq or Hk, D * pools_k, d] f32
};

class Gates {
 public:
  // New gates, N(0, 0.02) from `seed` (the published initialisation), for `model`.
  static Gates create(const io::GateConfig& config, const Decoder& model, uint64_t seed);
  // From a gate's folder. Error: gates of another model (layers, heads or sizes differ: expected
  // and found; or, unless `foreign` is taken, its weights, RoPE, norm or windows, where the folder
  // tells them: config().fingerprint), missing tensors, NaN or infinite weights.
  static Gates load(const std::filesystem::path& folder, const Decoder& model,
                    bool foreign = false);
  // Names `model` as what they were made for.
  void save(const std::filesystem::path& folder, const Decoder& model) const;

  const io::GateConfig& config() const { return config_; }
  std::vector<GateWeights>& layers() { return layers_; }
  const std::vector<GateWeights>& layers() const { return layers_; }

  // Scores [Hq, R, N] of a layer, before the softmax, -inf where masked. Differentiable in the
  // weights, nowhere else. `key_cache` (null, or one tensor per layer) holds the gate keys [blocks,
  // Hg, d] of the chunks before; this chunk's are appended, or replace them where it starts at
  // token 0. Chunks must start at a multiple of the block size. Error: a chunk that does not follow
  // the cached ones.
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged,
                    const Decoder& model, std::vector<at::Tensor>* key_cache = nullptr) const;

 private:
  // cos, sin [blocks, rotary_dim / 2] for the blocks of these sequences: those of all layers.
  struct Turns {
    Sequences sequences;
    at::Tensor cos, sin;
  };
  const Turns& turns_of(const AttentionInput& input, const Decoder& model) const;

  io::GateConfig config_;
  std::vector<GateWeights> layers_;
  mutable Turns turns_;  // the last ones
};

}  // namespace seer::models
