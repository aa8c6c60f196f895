#pragma once
// Models of well-known shapes with random weights, to measure speed without anybody's weights.

#include <string>
#include <vector>

#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"

namespace seer::bench {

// "llama-3.1-8b", "llama-3.2-1b", "qwen2.5-14b", "qwen3-4b", "smollm2-135m".
std::vector<std::string> model_shapes();

// N(0, 0.02) weights, drawn on the device; norms one, biases zero. UsageError: an unknown name, with
// the list. `streamed`: its layers stay in host memory (Decoder::stream_layers()).
models::Decoder random_model(const std::string& shape, at::ScalarType dtype,
                             const at::Device& device, bool streamed = false, uint64_t seed = 0);

// Random ids that both the tokenizer and the model have; the same at every call.
std::vector<int32_t> random_tokens(int64_t count, const io::Tokenizer& tokenizer,
                                   const io::ModelConfig& config);

// Of a forward pass, causal attention counted as half and by the share that is kept; without the head.
double flop_per_token(const io::ModelConfig& config, int64_t length, double density = 1);
// Dense bf16 products a second, by the vendor's data sheet; 0: not known.
double peak_flops(const at::Device& device);

}  // namespace seer::bench
