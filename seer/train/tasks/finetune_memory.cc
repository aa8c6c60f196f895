#include "seer/train/tasks/finetune_memory.h"

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/models/memory.h"

namespace seer::train {
namespace {

// What helps where memory is short.
std::string remedy(const FinetuneSettings& s) {
  const bool helps = s.device.is_cuda() && !s.loop.states_on_host;
  return message("choose a smaller --length or --micro-batch",
                 helps ? ", or --states-on-host" : "");
}

}  // namespace

Plan finetune_plan(const io::ModelConfig& model, const FinetuneSettings& s) {
  const auto windows = static_cast<double>(std::min(s.micro_batch, s.sequences)),
             tokens = windows * static_cast<double>(s.length);
  const double hidden = model.hidden_size, q = double(model.num_heads) * model.head_dim,
               kv = double(model.num_kv_heads) * model.head_dim;
  const auto element = static_cast<double>(c10::elementSize(s.computes_in()));
  Plan plan;
  plan.step = message(counted(s.sequences, "window"), " of ", s.length, " tokens");
  // What computes, and f32 gradients, which wait for the clipping. The largest process's share of moments
  // and masters: an embedding has one owner. On the host an 8B model has 96 GB of them, and gradients
  // pass through two buffers.
  const double weights = models::weight_bytes(model, at::kChar);
  const bool on_host = s.loop.states_on_host,
             has_masters = on_host || s.computes_in() != at::kFloat;
  const double share = std::max(weights / (s.loop.ranks ? s.loop.ranks->size() : 1),
                                hidden * static_cast<double>(model.vocab_size));
  // Muon has one moment, but embedding and head are AdamW's, which has two.
  const double embeddings =
      hidden * static_cast<double>(model.vocab_size) * (model.tied_embeddings ? 1 : 2);
  const double of_adamw = s.is_muon() ? std::min(share, embeddings) : share;
  const double states = 4 * (share * (has_masters ? 2 : 1) + of_adamw);
  plan.trained = weights * (element + 4) + (on_host ? 0 : states);
  plan.on_host = on_host ? states : 0;
  // Inputs of all layers, what one of them keeps for its gradient, the head's gradient.
  plan.activations = element * tokens *
                         (model.num_layers * hidden + 8 * hidden + 6 * q + 6 * kv +
                          5.0 * model.intermediate_size) +
                     4.0 * hidden * static_cast<double>(model.vocab_size);
  if (s.is_sparse()) {
    const double blocks = std::ceil(static_cast<double>(s.length) / s.gate.block_size);
    const double map = 4.0 * model.num_heads * blocks * blocks * windows;
    const double kept = s.is_by_density() ? 2 * s.density : 1;
    // Map, scores, their gradient and softmax; lists of all layers.
    plan.maps = map * (4 + std::min(1.0, kept) * model.num_layers);
  }
  return plan;
}

void check_memory(const io::ModelConfig& model, const FinetuneSettings& s) {
  const Plan plan = finetune_plan(model, s);
  const double there = models::available_bytes(s.device), host = models::available_bytes(at::kCPU);
  const bool is_apart = s.device.is_cuda();
  const double trained = plan.trained + (is_apart ? 0 : plan.on_host);
  const double needed = trained + plan.activations + plan.maps;
  const auto text = [](double needed, double there) {
    return message("fine-tuning takes about ", models::bytes_text(needed), ", and ",
                   models::bytes_text(there), " are free");
  };
  SEER_CHECK(
      !is_apart || host <= 0 || plan.on_host <= host, text(plan.on_host, host),
      " in host memory for f32 weights and optimizer states: start more processes, or choose a "
      "smaller model");
  if (there <= 0 || needed <= there) return;
  SEER_CHECK(
      trained < there, text(needed, there),
      ": weights with gradients and optimizer states alone are ", models::bytes_text(trained),
      is_apart && plan.on_host == 0 ? ", choose --states-on-host, more processes or" : ", choose",
      " a smaller model");
  fail(text(needed, there), ": ", remedy(s));
}

RunResult within_memory(const FinetuneSettings& settings, const std::function<RunResult()>& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    const auto full = models::full_memory(error);
    if (!full) throw;
    fail(*full == at::kCPU ? "the host" : "the GPU", "'s memory is full (",
         shown(first_line(error.what()), 200), "): ", remedy(settings));
  }
}

}  // namespace seer::train
