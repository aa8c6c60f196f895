// A decode step beside the rate at which the device reads memory: the attention alone, and a model
// that writes one token after another.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "seer/bench/bench.h"
#include "seer/models/attention.h"
#include "seer/models/cache/sequence_cache.h"
#include "seer/torch/ops.h"
#include "seer/torch/stopwatch.h"

namespace seer::bench {
namespace {

// A plain read of a tensor's memory by all threads of the device.
void read_memory(const at::Tensor& x) {
  if (x.is_cuda()) {
    x.sum();
    return;
  }
  const auto* words = static_cast<const uint64_t*>(x.const_data_ptr());
  const int64_t num_words = x.numel() * static_cast<int64_t>(x.element_size()) / 8;
  std::vector<uint64_t> sums(static_cast<size_t>(at::get_num_threads()));
  const int64_t share = (num_words + at::get_num_threads() - 1) / at::get_num_threads();
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      uint64_t sum[8] = {};
      for (int64_t i = thread * share; i + 8 <= std::min(num_words, (thread + 1) * share); i += 8) {
        for (int j = 0; j < 8; ++j) sum[j] += words[i + j];
      }
      for (const uint64_t part : sum) sums[static_cast<size_t>(thread)] += part;
    }
  });
  // Used, so that no compiler leaves the loop out.
  static volatile uint64_t total;
  for (const uint64_t sum : sums) total = total + sum;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Rounds in which each call has its turn, so that all meet the machine in the same state; the
// milliseconds of each call. A turn is `repeats` calls.
std::vector<std::vector<double>> time_in_rounds(const std::vector<std::function<void()>>& calls,
                                                const at::Device& device, int repeats, int runs,
                                                double seconds) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> ms(calls.size());
  const auto begin = Clock::now();
  for (int round = -1;; ++round) {  // the first warms up
    for (size_t i = 0; i < calls.size(); ++i) {
      torch_ops::synchronize(device);
      const auto start = Clock::now();
      for (int n = 0; n < repeats; ++n) calls[i]();
      torch_ops::synchronize(device);
      const std::chrono::duration<double, std::milli> took = Clock::now() - start;
      if (round >= 0) ms[i].push_back(took.count() / repeats);
    }
    const std::chrono::duration<double> all = Clock::now() - begin;
    if (round + 1 >= runs && all.count() >= seconds) return ms;
  }
}

// One round's share of the rate of memory, the median of all rounds.
double share_of(const std::vector<double>& read_ms, double read_bytes,
                const std::vector<double>& call_ms, double call_bytes) {
  std::vector<double> shares;
  for (size_t i = 0; i < call_ms.size(); ++i) {
    shares.push_back(call_bytes / call_ms[i] * (read_ms[i] / read_bytes));
  }
  return median(shares);
}

nlohmann::json decode_row(const std::string& model, const std::string& implementation,
                          const std::string& dtype, int64_t heads_q, int64_t heads_kv,
                          int64_t head_dim, int64_t length, const std::vector<double>& ms,
                          double bytes, double share) {
  return {{"model", model},
          {"implementation", implementation},
          {"dtype", dtype},
          {"heads_q", heads_q},
          {"heads_kv", heads_kv},
          {"head_dim", head_dim},
          {"len_q", 1},
          {"len_k", length},
          {"median_ms", median(ms)},
          {"min_ms", *std::min_element(ms.begin(), ms.end())},
          {"max_ms", *std::max_element(ms.begin(), ms.end())},
          {"runs", ms.size()},
          {"gbytes_per_s", bytes / median(ms) * 1e-6},
          {"memory_share", share}};
}

}  // namespace

void decode_attn(const Shape& s, const at::Device& device, int runs, double seconds,
                 nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const auto options =
      at::TensorOptions(device).dtype(s.dtype == "f32" ? at::kFloat : at::kBFloat16);
  // As in a cache, the keys of a head lie together; keys and values lie side by side.
  const at::Tensor kv = at::randn({2, s.heads_kv, s.len_k, s.head_dim}, options);
  const at::Tensor q = at::randn({1, s.heads_q, s.head_dim}, options);
  const at::Tensor k = kv[0].transpose(0, 1), v = kv[1].transpose(0, 1);
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  const auto bytes = static_cast<double>(kv.nbytes());
  const std::vector<std::function<void()>> calls{
      [&] { read_memory(kv); }, [&] { torch_ops::decode_attn(q, k, v, {}, 0, scale); },
      [&] {
        at::scaled_dot_product_attention(q.unsqueeze(2), kv[0].unsqueeze(0), kv[1].unsqueeze(0), {},
                                         0, false, scale, s.heads_q != s.heads_kv);
      }};
  const auto ms = time_in_rounds(calls, device, device.is_cuda() ? 20 : 1, runs, seconds);
  const char* names[] = {"memory read", "seer", "torch sdpa"};
  for (size_t i = 0; i < ms.size(); ++i) {
    rows.push_back(decode_row("", names[i], s.dtype, s.heads_q, s.heads_kv, s.head_dim, s.len_k,
                              ms[i], bytes, share_of(ms[0], bytes, ms[i], bytes)));
  }
}

void decode(const models::Decoder& model, int64_t length, int runs, double seconds,
            const std::string& name, nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const io::ModelConfig& config = model.config();
  const auto options = at::TensorOptions(model.device()).dtype(model.dtype());
  models::SequenceCache cache(config.num_layers, length + 4096);
  at::Tensor keys;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    keys = at::randn({length, config.num_kv_heads, config.head_dim}, options);
    cache.append(layer, keys, keys);
  }
  cache.advance(length);
  at::Tensor id = at::zeros({1}, options.dtype(at::kLong));
  torch_ops::Stopwatch attention_time(model.device());
  std::vector<double> attention_ms;
  const models::Attention attention = [&](const models::AttentionInput& input) {
    const auto span = attention_time.span();
    return models::dense_attention(input);
  };
  const auto step = [&] {
    attention_time.reset();
    const at::Tensor hidden = model.hidden(id, {{1}, {cache.length() + 1}, 0}, attention, &cache);
    // As sampling does: the token comes to the host.
    id = at::full({1}, model.logits(hidden).argmax().item().toLong(), options.dtype(at::kLong));
    attention_ms.push_back(1e3 * attention_time.seconds());
  };
  // Bytes that a token reads: all but the table of embeddings, where that is not the head.
  double weights = 0;
  models::ModelWeights of_model = model.weights();
  for (const auto& [weight_name, weight] : models::named_weights(of_model)) {
    if (weight->is_same(of_model.embedding) && !config.tied_embeddings) continue;
    weights += static_cast<double>(weight->nbytes());
  }
  const double bytes = weights + 2.0 * config.num_layers * static_cast<double>(keys.nbytes());
  const auto ms =
      time_in_rounds({[&] { read_memory(keys); }, step}, model.device(), 1, runs, seconds);
  nlohmann::json row =
      decode_row(name, "seer", model.dtype() == at::kFloat ? "f32" : "bf16", config.num_heads,
                 config.num_kv_heads, config.head_dim, length, ms[1], bytes,
                 share_of(ms[0], static_cast<double>(keys.nbytes()), ms[1], bytes));
  row["tokens_per_s"] = 1e3 / median(ms[1]);
  attention_ms.erase(attention_ms.begin());  // the round that warms up
  row["attention_ms"] = median(attention_ms);
  rows.push_back(std::move(row));
}

}  // namespace seer::bench
