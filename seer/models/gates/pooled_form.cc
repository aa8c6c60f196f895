// The published prefill gate (arXiv 2410.13276): q and k before RoPE are pooled over blocks, projected, and
// rotated to the position of their block's first token. Single form: q has one pooling and no weight, k a
// weight per query head. Double form: both have weights, k one per key head.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <tuple>

#include "seer/base/error.h"
#include "seer/models/gates/gate_form.h"
#include "seer/models/rope.h"

namespace seer::models {
namespace {

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

class PooledForm : public GateForm {
 public:
  PooledForm(const io::GateConfig& config, const io::ModelConfig& model)
      : config_(config),
        num_heads_(model.num_heads),
        num_kv_heads_(model.num_kv_heads),
        head_dim_(model.head_dim),
        gate_dim_(config.gate_dim == 0 ? model.head_dim : config.gate_dim),
        rope_(model.rope) {
    config.check(model);
    // Where d is the head size, gate vectors rotate as the model's own q and k do. Where it is not, the
    // published code rotates all d features of some families, and of others as many as the model does,
    // which needs d to be at least that.
    if (model.gates_rotate_whole && gate_dim_ != head_dim_) rope_.rotary_dim = gate_dim_;
    SEER_CHECK(rope_.rotary_dim <= gate_dim_, "gate size is ", gate_dim_, ", less than the ",
               rope_.rotary_dim, " features that RoPE rotates in this ", model.model_type,
               " model; choose at least that");
  }

  GateWeights shapes() const override {
    const auto shape = [](at::IntArrayRef sizes) {
      return at::empty(sizes, at::TensorOptions(at::kFloat).device(at::kMeta));
    };
    const int64_t d = gate_dim_, q_in = head_dim_ * io::GateConfig::count(config_.q_pools()),
                  k_in = head_dim_ * io::GateConfig::count(config_.k_pools());
    GateWeights shapes;
    const bool is_double = config_.is_double(head_dim_);
    if (is_double) shapes.q = shape({num_heads_, q_in, d});
    shapes.k = shape({is_double ? num_kv_heads_ : num_heads_, k_in, d});
    return shapes;
  }

  GateVectors vectors(const AttentionInput& input, const torch_ops::Ragged& ragged,
                      const GateWeights& weights) override {
    find_angles(input);
    // The keys given now belong to the same tokens as the queries: one set of blocks for both.
    if (!at::GradMode::is_enabled()) {
      const auto [q, k] = torch_ops::attn_gate_vectors(
          input.q_plain, input.k_plain, ragged.cu_q, ragged.cu_rows, ragged.num_rows, ragged.block,
          config_.q_pools(), config_.k_pools(), weights.q, weights.k, cos_, sin_);
      return {q, k};
    }
    const auto of = [&](const at::Tensor& x, int pools, const at::Tensor& weight) {
      const auto pool = [&](const at::Tensor& cos, const at::Tensor& sin) {
        return torch_ops::attn_gate_pool(x.detach(), ragged.cu_q, ragged.cu_rows, ragged.num_rows,
                                         ragged.block, pools, cos, sin);
      };
      if (!weight.defined()) return pool(cos_, sin_);
      return torch_ops::attn_gate_project(pool({}, {}), weight, cos_, sin_);
    };
    return {of(input.q_plain, config_.q_pools(), weights.q),
            of(input.k_plain, config_.k_pools(), weights.k)};
  }

 private:
  // All layers of a forward pass have the same.
  void find_angles(const AttentionInput& input) {
    const Sequences& now = input.sequences;
    const at::Device device = input.q_plain.device();
    if (cos_.defined() && cos_.device() == device && now.q_lens == sequences_.q_lens &&
        now.k_lens == sequences_.k_lens && now.longest() == sequences_.longest()) {
      return;
    }
    sequences_ = now;
    std::tie(cos_, sin_) =
        rope_tables(rope_, block_positions(now, config_.block_size, device), now.longest());
  }

  io::GateConfig config_;
  int num_heads_, num_kv_heads_, head_dim_, gate_dim_;
  RopeConfig rope_;
  // Of the last call: cos, sin [blocks, rotary_dim / 2] for the blocks of these sequences.
  Sequences sequences_;
  at::Tensor cos_, sin_;
};

}  // namespace

std::unique_ptr<GateForm> make_gate_form(const io::GateConfig& config,
                                         const io::ModelConfig& model) {
  return std::make_unique<PooledForm>(config, model);
}

}  // namespace seer::models
