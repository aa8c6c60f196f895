#include "seer/train/tasks/checkpointed.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>

#include <algorithm>
#include <vector>

#include "seer/train/tasks/cross_entropy.h"

namespace seer::train {
namespace {

// A leaf of its own, on the same memory.
at::Tensor leaf(const at::Tensor& x) {
  return x.detach().requires_grad_();
}

}  // namespace

TokenBatch batch_of_windows(const at::Tensor& windows, const at::Device& device, int64_t end) {
  const int64_t count = windows.size(0), length = windows.size(1) - 1;
  TokenBatch batch;
  const at::Tensor ids = windows.narrow(1, 0, length).reshape(-1).contiguous();
  std::vector<int64_t>& lens = batch.sequences.q_lens;
  if (end < 0) {
    lens.assign(static_cast<size_t>(count), length);
  } else {
    const int64_t* id = ids.const_data_ptr<int64_t>();
    int64_t begin = 0;
    for (int64_t i = 0; i < count * length; ++i) {
      if (id[i] != end && (i + 1) % length != 0) continue;
      lens.push_back(i + 1 - begin);
      begin = i + 1;
    }
  }
  batch.sequences.k_lens = lens;
  batch.ids = ids.to(device);
  batch.targets = windows.narrow(1, 1, length).reshape(-1).to(device);
  return batch;
}

at::Tensor checkpointed_backward(const models::Decoder& model, const TokenBatch& batch,
                                 double share, const LayerRuns& runs, const PassWatch& watch) {
  const int layers = model.config().num_layers, runs_of_layers = 2 * layers - 1;
  int done = 0;
  const auto passed = [&] {
    if (watch.passed) watch.passed(++done, runs_of_layers);
  };
  const auto complete = [&](int part) {
    if (watch.complete) watch.complete(part);
  };
  std::vector<at::Tensor> inputs;
  models::Decoder::Pass pass = [&] {
    const at::NoGradGuard no_grad;
    models::Decoder::Pass first = model.begin(batch.ids, batch.sequences);
    for (int layer = 0; layer + 1 < layers; ++layer) {
      inputs.push_back(first.x);
      model.run_layer(layer, first, runs.first);
      passed();
    }
    inputs.push_back(first.x);
    return first;
  }();

  at::Tensor loss, grad;
  for (int layer = layers - 1; layer >= 0; --layer) {
    const at::Tensor x = pass.x = leaf(inputs.back());
    inputs.pop_back();
    model.run_layer(layer, pass, runs.again);
    const at::Tensor y = pass.x;
    if (layer == layers - 1) {  // run once: what follows it is computed in between
      const at::Tensor last = pass.x = leaf(y);
      loss = chunked_cross_entropy(model.end(pass), model.weights().head, batch.targets).mul(share);
      loss.backward();
      complete(layers);
      grad = last.grad();
    }
    y.backward(grad);
    grad = x.grad();
    complete(layer);
    passed();
  }
  at::embedding(model.weights().embedding, batch.ids).backward(grad);
  complete(-1);
  return loss.detach();
}

}  // namespace seer::train
