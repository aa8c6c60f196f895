#pragma once
// The decoder of every supported family: embedding, layers of attention and gated MLP with RMSNorm,
// output head. Functional: weights are plain tensors, so that training, streaming and inference
// share this code.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/io/model_config.h"
#include "seer/models/attention.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/weights.h"

namespace seer::models {

class LayerStream;

class Decoder {
 public:
  Decoder(io::ModelConfig config, ModelWeights weights);
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  // Maps the safetensors of `folder` (single file or sharded with an index). Weights stay on the
  // mapped pages when dtype and device are the file's. Error: missing or truncated files, a tensor
  // missing, of the wrong shape (expected and found), NaN or infinite; each names the file and the
  // tensor.
  // `streamed`: the layers stay in host memory and travel to the device one by one, for a model that
  // is larger than its memory (layer_stream.h).
  static Decoder load(const std::filesystem::path& folder, at::ScalarType dtype,
                      const at::Device& device, bool streamed = false);
  // From here on the layers, which must be in host memory, are streamed to the device of the
  // embedding.
  void stream_layers();

  const io::ModelConfig& config() const { return config_; }
  // Streamed layers are in host memory.
  ModelWeights& weights() { return *weights_; }
  const ModelWeights& weights() const { return *weights_; }
  // What it is called and how its weights are told from others (fingerprint.h): of the folder that it
  // was loaded from; of a model made in memory no name, and its weights as they are now.
  struct Origin {
    std::string name, fingerprint;
  };
  Origin origin() const;
  at::Device device() const { return weights_->embedding.device(); }
  at::ScalarType dtype() const { return weights_->embedding.scalar_type(); }

  // ids int64 [T] of all sequences -> hidden states after the last norm [T, hidden].
  // `cache`: null, or the cache of the (single) sequence: keys and values are appended to it.
  at::Tensor hidden(const at::Tensor& ids, const Sequences& sequences, const Attention& attention,
                    SequenceCache* cache = nullptr) const;

  // The same a layer at a time, begin(), run_layer() for each layer in order, end(): several passes
  // may go through a layer one after another, so that a streamed layer travels once for all of them.
  struct Pass {
    Sequences sequences;
    at::Tensor x;         // [T, hidden] before the layer; may wait in host memory between layers
    at::Tensor cos, sin;  // [T, rotary_dim / 2]
  };
  Pass begin(const at::Tensor& ids, const Sequences& sequences) const;
  void run_layer(int layer, Pass& pass, const Attention& attention,
                 SequenceCache* cache = nullptr) const;
  at::Tensor end(const Pass& pass) const;
  bool is_streamed() const { return stream_ != nullptr; }

  // hidden [T, hidden] -> logits [T, vocab]
  at::Tensor logits(const at::Tensor& hidden) const;

  // cos, sin [n, rotary_dim / 2] f32 at the given positions, for a model that runs at `length`
  // tokens: what the layers and the gates rotate by.
  std::pair<at::Tensor, at::Tensor> rope(const at::Tensor& positions, int64_t length) const;

 private:
  io::ModelConfig config_;
  Origin origin_;
  // On the heap, so that the stream finds the layers when the decoder has moved.
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<LayerStream> stream_;
};

}  // namespace seer::models
