#include "seer/models/gates/gates.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/loader.h"
#include "seer/torch/beside.h"

namespace seer::models {
namespace {

constexpr double kInitialDeviation = 0.02;  // of the published code

// RoPE by what it does, not by how it is written.
bool same_rotation(const RopeConfig& a, const RopeConfig& b) {
  for (const int64_t length : {1'000, 32'000, 1'000'000}) {
    const RopeFrequencies x = rope_frequencies(a, length), y = rope_frequencies(b, length);
    if (x.inv_freq != y.inv_freq || x.attention_factor != y.attention_factor) return false;
  }
  return true;
}

// That scores of lookup heads leave to the gate, which memory bounds. On an H200 at 32k tokens three heads and the gate take 298 us
// with 16, 301 with 8, 302 with 24 and 307 with none; one head and the gate take 202 with any.
constexpr int kMultiprocessorsOfGate = 16;

at::Tensor draw(at::IntArrayRef shape, uint64_t seed, uint64_t stream) {
  at::Tensor weight = at::empty(shape, at::TensorOptions(at::kFloat));
  Random random(seed, stream);
  float* out = weight.mutable_data_ptr<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) {
    out[i] = static_cast<float>(kInitialDeviation * random.normal());
  }
  return weight;
}

// Lookup heads in config.json and in the weights are the same layers'.
void check_lookup_weights(const io::SafetensorsFile& file, const std::string& config_path,
                          const std::vector<GateWeights>& layers) {
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const bool has = layers[layer].lookup_q.defined();
    for (const char* parameter : {"lookup_q", "lookup_k"}) {
      const std::string name = io::gate_weight_name(static_cast<int>(layer), parameter);
      SEER_CHECK(file.contains(name) == has, file.path().string(), ": tensor ", name,
                 has ? " is missing, but " : " is there, but ", config_path,
                 has ? " names lookup heads" : " names no lookup head", " of layer ", layer,
                 "; do config.json and weights belong together?");
    }
  }
}

// Of the heads `heads` of x [T, H, D] the products with weight [L, D, r], which learns: [T, L, r]. In f32, then of x's type.
at::Tensor project(const at::Tensor& x, const std::vector<int64_t>& heads,
                   const at::Tensor& weight) {
  const std::vector<at::Tensor> of_heads = weight.unbind(0);
  std::vector<at::Tensor> made;
  for (size_t l = 0; l < heads.size(); ++l) {
    made.push_back(at::mm(x.detach().select(1, heads[l]).to(at::kFloat), of_heads[l]));
  }
  return at::stack(made, 1).to(x.scalar_type());
}

}  // namespace

std::string difference_of_models(const std::filesystem::path& folder, const io::GateConfig& gate,
                                 const Decoder& model) {
  const Decoder::Origin origin = model.origin();
  if (gate.fingerprint != origin.fingerprint) {
    return message(shown(gate.base_model), " with weights ", shown(gate.fingerprint), ", not ",
                   origin.fingerprint, " as in ", shown(origin.name));
  }
  const io::ModelConfig theirs = io::ModelConfig::read(folder), &ours = model.config();
  const auto sizes = [](const io::ModelConfig& c) {
    return message(counted(c.num_layers, "layer"), " of ", c.num_heads, " query and ",
                   counted(c.num_kv_heads, "key head"), " of ", c.head_dim, " features");
  };
  if (sizes(theirs) != sizes(ours)) {
    return message("with the same weights but ", sizes(theirs), ", here ", sizes(ours));
  }
  if (!same_rotation(theirs.rope, ours.rope)) {
    return message("with the same weights but other RoPE settings (theta ", theirs.rope.theta, ", ",
                   theirs.rope.type, "; here ", ours.rope.theta, ", ", ours.rope.type, ")");
  }
  if (theirs.rms_norm_eps != ours.rms_norm_eps) {
    return message("with the same weights but rms_norm_eps ", theirs.rms_norm_eps, ", here ",
                   ours.rms_norm_eps);
  }
  if (theirs.sliding_window != ours.sliding_window) {
    return "with the same weights but other sliding windows";
  }
  return "";
}

Gates::Gates(const io::GateConfig& config, const Decoder& model)
    : config_(config), form_(make_gate_form(config, model.config())) {
  const io::ModelConfig& sizes = model.config();
  const auto num_layers = static_cast<size_t>(sizes.num_layers);
  config_.lookup_heads.resize(num_layers);
  layers_.assign(num_layers, form_->shapes());
  lookup_heads_.resize(num_layers);
  for (size_t layer = 0; layer < num_layers; ++layer) {
    const std::vector<int>& heads = config_.lookup_heads[layer];
    if (heads.empty()) continue;
    const auto count = static_cast<int64_t>(heads.size());
    GateWeights& weights = layers_[layer];
    weights.lookup_q = at::empty({count, sizes.head_dim, config_.lookup_rank},
                                 at::TensorOptions(at::kFloat).device(at::kMeta));
    weights.lookup_k = weights.lookup_q;
    LookupHeads& own = lookup_heads_[layer];
    for (const int head : heads) {
      own.heads.push_back(head);
      own.kv_heads.push_back(head / (sizes.num_heads / sizes.num_kv_heads));
    }
    const auto to_device = [&](const std::vector<int64_t>& which) {
      return at::tensor(which, at::kLong).to(model.device());
    };
    own.on_device = to_device(own.heads);
    own.kv_on_device = to_device(own.kv_heads);
  }
}

Gates Gates::create(const io::GateConfig& config, const Decoder& model, uint64_t seed) {
  Gates gates(config, model);
  for (size_t layer = 0; layer < gates.layers_.size(); ++layer) {
    for (const GateParameter& parameter : parameters_of(gates.layers_[layer])) {
      at::Tensor& weight = gates.layers_[layer].*parameter.weight;
      weight = draw(weight.sizes(), seed, 2 * layer + parameter.stream).to(model.device());
    }
  }
  return gates;
}

Gates Gates::load(const std::filesystem::path& folder, const Decoder& model, bool foreign) {
  const std::string config_path = (folder / "config.json").string();
  const io::GateConfig config = io::read_gate_config(folder);
  Gates gates = [&] {
    try {
      return Gates(config, model);
    } catch (const Error& error) {
      fail(config_path, ": ", error.what());
    }
  }();
  const io::SafetensorsFile file(io::gate_weights_path(folder));
  check_lookup_weights(file, config_path, gates.layers_);
  const size_t num_layers = gates.layers_.size();
  size_t expected = 0;
  for (const GateWeights& layer : gates.layers_) expected += parameters_of(layer).size();
  SEER_CHECK(file.tensors().size() == expected, file.path().string(), " holds ",
             file.tensors().size(), " tensors, expected ", expected, " for a model of ", num_layers,
             " layers; are these gates of another model?");
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (const GateParameter& parameter : parameters_of(gates.layers_[layer])) {
      at::Tensor& weight = gates.layers_[layer].*parameter.weight;
      weight = load_tensor(file, io::gate_weight_name(static_cast<int>(layer), parameter.name),
                           weight.sizes(), at::kFloat, model.device());
    }
  }
  if (!foreign && !config.fingerprint.empty()) {
    const std::string difference = difference_of_models(folder, config, model);
    SEER_CHECK(difference.empty(), config_path, ": these gates were made for another model, ",
               difference,
               "; name that one with --model, train gates for this one with `seer distill`, ",
               "or add --foreign-gates to use them all the same");
  }
  return gates;
}

void Gates::save(const std::filesystem::path& folder, const Decoder& model) const {
  std::vector<at::Tensor> kept;  // the records point into these
  std::vector<io::NamedTensor> records;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    for (const GateParameter& parameter : parameters_of(layers_[layer])) {
      kept.push_back((layers_[layer].*parameter.weight).detach().cpu().contiguous());
      records.push_back(tensor_record(io::gate_weight_name(static_cast<int>(layer), parameter.name),
                                      kept.back()));
    }
  }
  std::filesystem::create_directories(folder);
  io::write_safetensors(io::gate_weights_path(folder), records, {{"format", "pt"}});
  io::GateConfig config = config_;
  const Decoder::Origin origin = model.origin();
  config.base_model = origin.name;
  config.fingerprint = origin.fingerprint;
  io::write_gate_config(folder, model.config().raw, config);
}

Gates Gates::without_lookup_heads() const {
  Gates out = *this;
  out.config_.lookup_rank = 0;
  for (auto& heads : out.config_.lookup_heads) heads.clear();
  for (LookupHeads& heads : out.lookup_heads_) heads = {};
  for (GateWeights& weights : out.layers_) weights.lookup_q = weights.lookup_k = at::Tensor();
  return out;
}

void Gates::make_trainable() {
  for (GateWeights& layer : layers_) {
    for (const GateParameter& parameter : parameters_of(layer)) {
      at::Tensor& weight = layer.*parameter.weight;
      weight = weight.detach().clone().requires_grad_();
    }
  }
}

GateVectors Gates::vectors(const AttentionInput& input, const torch_ops::Ragged& ragged) const {
  const Sequences& sequences = input.sequences;
  SEER_CHECK(ragged.block == config_.block_size, "blocks of ", ragged.block,
             " tokens, but the gates were made for ", config_.block_size);
  SEER_CHECK(input.cache != nullptr || sequences.q_lens == sequences.k_lens,
             "a prompt in chunks needs a cache of gate keys");
  GateVectors out = form_->vectors(input, ragged, layers_.at(static_cast<size_t>(input.layer)));
  if (input.cache == nullptr) return out;
  SEER_CHECK(sequences.q_lens.size() == 1, "a cache of gate keys holds one sequence, got ",
             sequences.q_lens.size());
  const int64_t begin = sequences.k_lens[0] - sequences.q_lens[0];
  SEER_CHECK(begin % config_.block_size == 0, "a chunk starts at token ", begin,
             ", not a multiple of the gates' block size ", config_.block_size,
             "; choose a chunk length that is");
  out.k = input.cache->append_gate_keys(input.layer, begin / config_.block_size, out.k);
  return out;
}

at::Tensor Gates::scores(const AttentionInput& input, const torch_ops::Ragged& ragged) const {
  const at::Tensor& heads = lookup_heads(input.layer);
  const auto of_gate = [&] {
    const GateVectors v = vectors(input, ragged);
    return torch_ops::attn_gate_score(v.q, v.k, ragged);
  };
  if (!heads.defined()) return of_gate();
  const auto of_lookups = [&](int beside) {
    const torch_ops::Lookups x = lookups(input);
    return torch_ops::lookup_score(x.q, x.k, ragged, input.scale, beside);
  };
  if (at::GradMode::is_enabled()) {
    const at::Tensor scores = of_gate();
    return torch_ops::with_scores_of(heads, of_lookups(0), scores);
  }
  // Tensor cores bound the one, memory the other.
  torch_ops::Beside under_way(input.q.device(), [&] { return of_lookups(kMultiprocessorsOfGate); });
  const at::Tensor scores = of_gate();
  return torch_ops::with_scores_of(heads, under_way.take(), scores);
}

const at::Tensor& Gates::lookup_heads(int layer) const {
  return lookup_heads_.at(static_cast<size_t>(layer)).on_device;
}

torch_ops::Lookups Gates::lookups(const AttentionInput& input) const {
  const auto layer = static_cast<size_t>(input.layer);
  const LookupHeads& own = lookup_heads_.at(layer);
  if (own.heads.empty()) return {};
  const GateWeights& w = layers_[layer];
  if (at::GradMode::is_enabled() && (w.lookup_q.requires_grad() || w.lookup_k.requires_grad())) {
    return {project(input.q, own.heads, w.lookup_q), project(input.k, own.kv_heads, w.lookup_k),
            own.on_device};
  }
  const auto [q, k] =
      torch_ops::lookup_project(input.q.detach(), input.k.detach(), w.lookup_q.detach(),
                                w.lookup_k.detach(), own.on_device, own.kv_on_device);
  return {q, k, own.on_device};
}

}  // namespace seer::models
