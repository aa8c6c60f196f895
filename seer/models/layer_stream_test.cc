#include "seer/models/layer_stream.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"
#include "seer/models/loader.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

Decoder deep_model(int layers) {
  nlohmann::json config = test::small_config();
  config["num_hidden_layers"] = layers;
  return test::small_model(config);
}

at::Tensor hidden_of(const Decoder& model) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::arange(40, at::TensorOptions(at::kLong));
  return model.hidden(ids, {{40}, {40}, 0}, dense_attention);
}

TEST(LayerStream, StreamedModelComputesTheSameBits) {
  for (const int layers : {1, 2, 5}) {
    Decoder model = deep_model(layers);
    const at::Tensor resident = hidden_of(model);
    model.stream_layers();
    const Decoder moved = std::move(model);
    for (int pass = 0; pass < 3; ++pass) EXPECT_TRUE(hidden_of(moved).equal(resident)) << layers;
  }
}

TEST(LayerStream, AnyOrder) {
  const Decoder model = deep_model(4);
  LayerStream stream(model.weights().layers, at::kCPU);
  for (const int layer : {0, 1, 3, 3, 2, 0, 1, 2, 3, 0}) {
    const LayerWeights& got = stream.layer(layer);
    EXPECT_TRUE(got.q.equal(model.weights().layers[static_cast<size_t>(layer)].q)) << layer;
    EXPECT_TRUE(got.down.equal(model.weights().layers[static_cast<size_t>(layer)].down)) << layer;
  }
}

TEST(LayerStream, FromAFolder) {
  const test::TemporaryFolder folder;
  nlohmann::json config = test::small_config();
  save_model(folder.path, config, test::small_model(config).weights());
  const Decoder resident = Decoder::load(folder.path, at::kFloat, at::kCPU);
  const Decoder streamed = Decoder::load(folder.path, at::kFloat, at::kCPU, /*streamed=*/true);
  EXPECT_TRUE(hidden_of(streamed).equal(hidden_of(resident)));
}

TEST(LayerStream, LayersOfOtherShapesAreAnError) {
  Decoder model = deep_model(3);
  model.weights().layers[1].up = at::empty({8, 64});
  model.stream_layers();
  EXPECT_THROW(hidden_of(model), Error);
}

TEST(LayerStream, EndsWhileACopyIsUnderWay) {
  const Decoder model = deep_model(3);
  for (int i = 0; i < 20; ++i) LayerStream(model.weights().layers, at::kCPU).layer(0);
}

}  // namespace
}  // namespace seer::models
