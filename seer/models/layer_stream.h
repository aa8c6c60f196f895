#pragma once
// A model that is larger than its GPU's memory: layers stay in host memory (on the mapped pages of
// the model's files), and each is copied to the GPU while the one before it computes.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "seer/models/decoder.h"

namespace seer::models {

class LayerStream {
 public:
  // `layers`: contiguous tensors in host memory, all layers of the same shapes; outlives this. Takes
  // two layers' worth of the device's memory and 128 MiB of pinned host memory.
  LayerStream(const std::vector<LayerWeights>& layers, const at::Device& device);
  ~LayerStream();
  LayerStream(const LayerStream&) = delete;
  LayerStream& operator=(const LayerStream&) = delete;

  // Layer i on the device, for work that is enqueued on the current stream before another layer is
  // asked for. The layer after it (the first after the last) begins to travel. Waits until layer i is
  // under way.
  const LayerWeights& layer(int i);

 private:
  class Copier;
  std::unique_ptr<Copier> copier_;
};

}  // namespace seer::models
