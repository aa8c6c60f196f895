#include "seer/models/gates/gates.h"

#include <ATen/ops/empty.h>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/models/loader.h"

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

// Of the layers' draws: each letter has streams of its own.
uint64_t stream_of(char letter) {
  return letter == 'q' ? 0 : letter == 'k' ? 1 : static_cast<uint64_t>(letter) << 32;
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

}  // namespace

Gates::Gates(const io::GateConfig& config, const Decoder& model)
    : config_(config),
      form_(make_gate_form(config, model.config())),
      layers_(static_cast<size_t>(model.config().num_layers)) {}

Gates Gates::create(const io::GateConfig& config, const Decoder& model, uint64_t seed) {
  Gates gates(config, model);
  for (size_t layer = 0; layer < gates.layers_.size(); ++layer) {
    for (const auto& [letter, shape] : gates.form_->weights()) {
      const uint64_t stream = 2 * layer + stream_of(letter);
      gates.layers_[layer].of(letter) = draw(shape, seed, stream).to(model.device());
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
  const auto weights = gates.form_->weights();
  const size_t num_layers = gates.layers_.size(), expected = num_layers * weights.size();
  SEER_CHECK(file.tensors().size() == expected, file.path().string(), " holds ",
             file.tensors().size(), " tensors, expected ", expected, " for a model of ", num_layers,
             " layers; are these gates of another model?");
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (const auto& [letter, shape] : weights) {
      gates.layers_[layer].of(letter) =
          load_tensor(file, io::gate_weight_name(static_cast<int>(layer), letter), shape,
                      at::kFloat, model.device());
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
    for (const auto& [letter, shape] : form_->weights()) {
      kept.push_back(layers_[layer].of(letter).detach().cpu().contiguous());
      records.push_back(
          tensor_record(io::gate_weight_name(static_cast<int>(layer), letter), kept.back()));
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
  const GateVectors v = vectors(input, ragged);
  return torch_ops::attn_gate_score(v.q, v.k, ragged);
}

}  // namespace seer::models
