#pragma once
// The gates of a model: weights of every layer, and scores of key blocks from a layer's q and k.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "seer/models/decoder.h"
#include "seer/models/gates/gate_form.h"

namespace seer::models {

class Gates {
 public:
  // New gates, N(0, 0.02) from `seed` (the published initialisation), for `model`.
  static Gates create(const io::GateConfig& config, const Decoder& model, uint64_t seed);
  // From a gate's folder. Error: gates of another model (layers, heads, sizes or lookup heads differ:
  // expected and found; or, unless `foreign` is taken, its weights, RoPE, norm or windows, where the folder
  // tells them: config().fingerprint), missing tensors, NaN or infinite weights.
  static Gates load(const std::filesystem::path& folder, const Decoder& model,
                    bool foreign = false);
  // Names `model` as what they were made for.
  void save(const std::filesystem::path& folder, const Decoder& model) const;

  const io::GateConfig& config() const { return config_; }
  std::vector<GateWeights>& layers() { return layers_; }
  const std::vector<GateWeights>& layers() const { return layers_; }
  // The same without lookup heads; shares its tensors.
  Gates without_lookup_heads() const;
  // All weights become leaves that get gradients, in memory of their own.
  void make_trainable();

  // The layer's vectors: of the rows given now, and of all key blocks. With a cache of the sequence the keys
  // given now are appended to it; chunks must start at a multiple of the block size. Error: a chunk
  // without a cache, or one that does not follow the cached ones.
  GateVectors vectors(const AttentionInput& input, const torch_ops::Ragged& ragged) const;
  // Of the layer's lookup heads, undefined where it has none: q and k after RoPE, of all keys up to now, times a
  // matrix each, by lookup_project(); where the weights learn in f32, then of the type of q and k. Differentiable in the
  // weights, nowhere else.
  torch_ops::Lookups lookups(const AttentionInput& input) const;
  // Which heads they are, int64 [L] on the model's device; undefined: none.
  const at::Tensor& lookup_heads(int layer) const;
  // Scores [Hq, R, N], before the softmax, -inf where masked: by vectors(), those of lookup heads by lookups(), on a GPU beside.
  // Differentiable in the weights, nowhere else.
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) const;

 private:
  Gates(const io::GateConfig& config, const Decoder& model);

  io::GateConfig config_;
  std::shared_ptr<GateForm> form_;
  std::vector<GateWeights> layers_;
  struct LookupHeads {
    std::vector<int64_t> heads, kv_heads;  // query heads, and the key heads that they read
    at::Tensor on_device, kv_on_device;    // the same, int64; undefined: none
  };
  std::vector<LookupHeads> lookup_heads_;  // of every layer; empty where it has none
};

// Between the model that the gates of a folder, whose config is `gate`, were made for and this one, in all
// that their q and k depend on. Empty: none.
std::string difference_of_models(const std::filesystem::path& folder, const io::GateConfig& gate,
                                 const Decoder& model);

}  // namespace seer::models
