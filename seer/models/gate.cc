#include "seer/models/gate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/models/loader.h"
#include "seer/models/rope.h"

namespace seer::models {
namespace {

constexpr double kInitialDeviation = 0.02;  // of the published code

int gate_dim(const io::GateConfig& config, const io::ModelConfig& model) {
  return config.gate_dim == 0 ? model.head_dim : config.gate_dim;
}

// Shapes of a layer's weights; that of q is empty in the single form.
struct GateShapes {
  std::vector<int64_t> q, k;
};
GateShapes gate_shapes(const io::GateConfig& config, const io::ModelConfig& model) {
  const int64_t d = gate_dim(config, model), head_dim = model.head_dim;
  const int64_t q_in = head_dim * io::GateConfig::count(config.q_pools());
  const int64_t k_in = head_dim * io::GateConfig::count(config.k_pools());
  if (!config.is_double(model.head_dim)) return {{}, {model.num_heads, k_in, d}};
  return {{model.num_heads, q_in, d}, {model.num_kv_heads, k_in, d}};
}

// How gate vectors of size d turn. Where d is the head size: as the model's own q and k. Where it
// is not, the published code turns all d features with Qwen2, and as many as the model turns with
// Llama, which needs d to be at least that; the other families, which it does not have, go with
// Llama.
RopeConfig gate_rope(const io::GateConfig& config, const io::ModelConfig& model) {
  RopeConfig rope = model.rope;
  const int d = gate_dim(config, model);
  if (model.model_type == "qwen2" && d != model.head_dim) rope.rotary_dim = d;
  SEER_CHECK(rope.rotary_dim <= d, "gate size is ", d, ", less than the ", rope.rotary_dim,
             " features that RoPE turns in this ", model.model_type,
             " model; choose at least that");
  return rope;
}

void check_fits(const io::GateConfig& config, const io::ModelConfig& model) {
  config.check(model.head_dim);
  gate_rope(config, model);
}

// RoPE by what it does, not by how it is written.
bool same_turns(const RopeConfig& a, const RopeConfig& b) {
  for (const int64_t length : {1'000, 32'000, 1'000'000}) {
    const RopeFrequencies x = rope_frequencies(a, length), y = rope_frequencies(b, length);
    if (x.inv_freq != y.inv_freq || x.attention_factor != y.attention_factor) return false;
  }
  return true;
}

// Between the model that gates were made for, as their folder has it, and this one, in all that their
// q and k depend on. Empty: none.
std::string difference_of_models(const std::filesystem::path& folder, const io::GateConfig& gate,
                                 const Decoder& model) {
  const Decoder::Origin origin = model.origin();
  if (gate.fingerprint != origin.fingerprint) {
    return message(shown(gate.base_model), " with weights ", shown(gate.fingerprint), ", not ",
                   origin.fingerprint, " as in ", shown(origin.name));
  }
  const io::ModelConfig theirs = io::ModelConfig::read(folder), &ours = model.config();
  if (!same_turns(theirs.rope, ours.rope)) {
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

at::Tensor draw(const std::vector<int64_t>& shape, uint64_t seed, uint64_t stream) {
  at::Tensor weight = at::empty(shape, at::TensorOptions(at::kFloat));
  Random random(seed, stream);
  float* out = weight.mutable_data_ptr<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) {
    out[i] = static_cast<float>(kInitialDeviation * random.normal());
  }
  return weight;
}

// Positions of the first token of each block of the tokens given now.
at::Tensor block_positions(const Sequences& sequences, int block, const at::Device& device) {
  const auto options = at::TensorOptions(at::kLong).device(device);
  std::vector<at::Tensor> parts;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t begin = sequences.k_lens[b] - sequences.q_lens[b];
    parts.push_back(at::arange(begin, sequences.k_lens[b], block, options));
  }
  return at::cat(parts, 0);
}

// Gate keys of the chunks before and of this one, in one tensor; the cache then holds them all.
at::Tensor append_keys(const at::Tensor& keys, const AttentionInput& input, int block,
                       std::vector<at::Tensor>& cache) {
  const Sequences& sequences = input.sequences;
  SEER_CHECK(sequences.q_lens.size() == 1, "a cache of gate keys holds one sequence, got ",
             sequences.q_lens.size());
  const int64_t begin = sequences.k_lens[0] - sequences.q_lens[0];
  SEER_CHECK(begin % block == 0, "a chunk starts at token ", begin,
             ", not a multiple of the gates' block size ", block,
             "; choose a chunk length that is");
  if (cache.size() <= static_cast<size_t>(input.layer)) cache.resize(input.layer + 1);
  at::Tensor& cached = cache[static_cast<size_t>(input.layer)];
  if (begin == 0) cached = at::Tensor();  // a new prompt
  const int64_t before = cached.defined() ? cached.size(0) : 0;
  SEER_CHECK(before == begin / block, "layer ", input.layer, " has gate keys of ", before,
             " blocks, expected ", begin / block, " before token ", begin);
  cached = before == 0 ? keys.detach() : at::cat({cached, keys.detach()}, 0);
  return before == 0 ? keys : cached;
}

}  // namespace

Gates Gates::create(const io::GateConfig& config, const Decoder& model, uint64_t seed) {
  check_fits(config, model.config());
  Gates gates;
  gates.config_ = config;
  const GateShapes shapes = gate_shapes(config, model.config());
  for (int layer = 0; layer < model.config().num_layers; ++layer) {
    const auto stream = static_cast<uint64_t>(2 * layer);
    GateWeights weights;
    if (!shapes.q.empty()) weights.q = draw(shapes.q, seed, stream).to(model.device());
    weights.k = draw(shapes.k, seed, stream + 1).to(model.device());
    gates.layers_.push_back(std::move(weights));
  }
  return gates;
}

Gates Gates::load(const std::filesystem::path& folder, const Decoder& model, bool foreign) {
  Gates gates;
  gates.config_ = io::read_gate_config(folder);
  const std::string config_path = (folder / "config.json").string();
  try {
    check_fits(gates.config_, model.config());
  } catch (const Error& error) {
    fail(config_path, ": ", error.what());
  }
  const io::SafetensorsFile file(io::gate_weights_path(folder));
  const GateShapes shapes = gate_shapes(gates.config_, model.config());
  const int num_layers = model.config().num_layers;
  const size_t expected = static_cast<size_t>(num_layers) * (shapes.q.empty() ? 1 : 2);
  SEER_CHECK(file.tensors().size() == expected, file.path().string(), " holds ",
             file.tensors().size(), " tensors, expected ", expected, " for a model of ", num_layers,
             " layers; are these gates of another model?");
  for (int layer = 0; layer < num_layers; ++layer) {
    const auto load = [&](char which, const std::vector<int64_t>& shape) {
      return load_tensor(file, io::gate_weight_name(layer, which), shape, at::kFloat,
                         model.device());
    };
    GateWeights weights;
    if (!shapes.q.empty()) weights.q = load('q', shapes.q);
    weights.k = load('k', shapes.k);
    gates.layers_.push_back(std::move(weights));
  }
  if (!foreign && !gates.config_.fingerprint.empty()) {
    const std::string difference = difference_of_models(folder, gates.config_, model);
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
    for (const char which : {'q', 'k'}) {
      const at::Tensor& weight = which == 'q' ? layers_[layer].q : layers_[layer].k;
      if (!weight.defined()) continue;
      kept.push_back(weight.detach().cpu().contiguous());
      records.push_back(
          tensor_record(io::gate_weight_name(static_cast<int>(layer), which), kept.back()));
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

at::Tensor Gates::scores(const AttentionInput& input, const torch_ops::Ragged& ragged,
                         const Decoder& model, std::vector<at::Tensor>* key_cache) const {
  const Sequences& sequences = input.sequences;
  SEER_CHECK(ragged.block == config_.block_size, "blocks of ", ragged.block,
             " tokens, but the gates were made for ", config_.block_size);
  SEER_CHECK(key_cache != nullptr || sequences.q_lens == sequences.k_lens,
             "a prompt in chunks needs a cache of gate keys");
  const GateWeights& weights = layers_.at(static_cast<size_t>(input.layer));
  const Turns& turns = turns_of(input, model);
  // The keys given now belong to the same tokens as the queries: one set of blocks for both.
  at::Tensor queries, keys;
  if (at::GradMode::is_enabled()) {
    const auto gate_vectors = [&](const at::Tensor& x, int pools, const at::Tensor& weight) {
      const auto pool = [&](const at::Tensor& cos, const at::Tensor& sin) {
        return torch_ops::attn_gate_pool(x.detach(), ragged.cu_q, ragged.cu_rows, ragged.num_rows,
                                         ragged.block, pools, cos, sin);
      };
      if (!weight.defined()) return pool(turns.cos, turns.sin);
      return torch_ops::attn_gate_project(pool({}, {}), weight, turns.cos, turns.sin);
    };
    queries = gate_vectors(input.q_plain, config_.q_pools(), weights.q);
    keys = gate_vectors(input.k_plain, config_.k_pools(), weights.k);
  } else {
    std::tie(queries, keys) = torch_ops::attn_gate_vectors(
        input.q_plain, input.k_plain, ragged.cu_q, ragged.cu_rows, ragged.num_rows, ragged.block,
        config_.q_pools(), config_.k_pools(), weights.q, weights.k, turns.cos, turns.sin);
  }
  if (key_cache != nullptr) keys = append_keys(keys, input, config_.block_size, *key_cache);
  return torch_ops::attn_gate_score(queries, keys, ragged);
}

const Gates::Turns& Gates::turns_of(const AttentionInput& input, const Decoder& model) const {
  const Sequences& now = input.sequences;
  const at::Device device = input.q_plain.device();
  const bool same = turns_.cos.defined() && turns_.cos.device() == device &&
                    now.q_lens == turns_.sequences.q_lens &&
                    now.k_lens == turns_.sequences.k_lens &&
                    now.longest() == turns_.sequences.longest();
  if (!same) {
    const auto [cos, sin] =
        rope_tables(gate_rope(config_, model.config()),
                    block_positions(now, config_.block_size, device), now.longest());
    turns_ = {now, cos, sin};
  }
  return turns_;
}

}  // namespace seer::models
