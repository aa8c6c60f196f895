#include "seer/models/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "seer/base/error.h"
#include "seer/base/random.h"

namespace seer::models {
namespace {

at::Tensor id_tensor(const std::vector<int32_t>& ids, const at::Device& device) {
  // from_blob does not own the ids; the conversion to int64 copies them.
  return at::from_blob(const_cast<int32_t*>(ids.data()), {static_cast<int64_t>(ids.size())},
                       at::TensorOptions(at::kInt))
      .to(at::kLong)
      .to(device, /*non_blocking=*/true);
}

void check_ids(const Decoder& model, const std::vector<int32_t>& ids) {
  SEER_CHECK(!ids.empty(), "the prompt is empty; give at least one token");
  const auto wrong = std::find_if(ids.begin(), ids.end(), [&](int32_t id) {
    return id < 0 || id >= model.config().vocab_size;
  });
  SEER_CHECK(wrong == ids.end(), "token id ", *wrong, " is outside of the model's vocabulary of ",
             model.config().vocab_size, "; do tokenizer and model belong together?");
}

void check(const GenerateSettings& s) {
  SEER_CHECK(s.max_new_tokens >= 0, "max_new_tokens is ", s.max_new_tokens, ", expected 0 or more");
  SEER_CHECK(s.temperature >= 0 && std::isfinite(s.temperature), "temperature is ", s.temperature,
             ", expected 0 or more");
  SEER_CHECK(s.top_p > 0 && s.top_p <= 1, "top_p is ", s.top_p, ", expected above 0, at most 1");
  SEER_CHECK(s.top_k >= 0, "top_k is ", s.top_k, ", expected 0 or more");
}

// Longrope has one set of frequencies up to a length and another beyond it: keys cached under the
// first are of no use under the second.
bool frequencies_change(const RopeConfig& rope, int64_t before, int64_t after) {
  const int64_t limit =
      rope.original_max_position > 0 ? rope.original_max_position : rope.max_position;
  return rope.type == "longrope" && before <= limit && after > limit;
}

}  // namespace

void prefill(const Decoder& model, const std::vector<int32_t>& ids, const Attention& attention,
             int64_t chunk, SequenceCache& cache,
             const std::function<void(const at::Tensor&)>& take) {
  check_ids(model, ids);
  SEER_CHECK(chunk >= 0, "chunk is ", chunk, ", expected 0 (the whole prompt) or more");
  SEER_CHECK(cache.length() == 0, "a prompt needs an empty KV cache, this one has ", cache.length(),
             " tokens");
  const at::Tensor all = id_tensor(ids, model.device());
  const int64_t length = all.size(0), step = chunk == 0 ? length : chunk;
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(length, begin + step);
    const Sequences sequences{{end - begin}, {end}, length};
    take(model.hidden(all.slice(0, begin, end), sequences, attention, &cache));
  }
}

int32_t sample(const at::Tensor& logits, const GenerateSettings& settings, int64_t step) {
  if (settings.temperature == 0) return logits.argmax().item().toInt();
  const at::Tensor values = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* value = values.const_data_ptr<double>();
  std::vector<int32_t> order(static_cast<size_t>(values.numel()));
  std::iota(order.begin(), order.end(), 0);
  size_t kept = order.size();
  if (settings.top_k > 0) kept = std::min(kept, static_cast<size_t>(settings.top_k));
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
      [&](int32_t a, int32_t b) { return value[a] != value[b] ? value[a] > value[b] : a < b; });
  std::vector<double> mass(kept);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    mass[i] = std::exp((value[order[i]] - value[order[0]]) / settings.temperature);
    total += mass[i];
  }
  double limit = 0;  // the mass of the tokens that top_p leaves
  size_t left = 0;
  while (left < kept && limit < settings.top_p * total) limit += mass[left++];
  Random random(settings.seed, static_cast<uint64_t>(step));
  double draw = random.uniform() * limit;
  for (size_t i = 0; i + 1 < left; ++i) {
    draw -= mass[i];
    if (draw < 0) return order[i];
  }
  return order[left - 1];
}

std::vector<int32_t> generate(const Decoder& model, const std::vector<int32_t>& prompt,
                              const Attention& attention, const GenerateSettings& settings,
                              const std::function<void(int32_t)>& on_token) {
  check(settings);
  const at::NoGradGuard no_grad;
  // The last token of all is never appended. Room for a long answer is made when it is needed.
  constexpr int64_t kMostAtOnce = 4096;
  const int64_t room = static_cast<int64_t>(prompt.size()) +
                       std::clamp<int64_t>(settings.max_new_tokens - 1, 0, kMostAtOnce);
  SequenceCache cache(model.config().num_layers, room);
  at::Tensor last;  // hidden state of the last token [1, hidden]
  const auto keep_last = [&](const at::Tensor& hidden) { last = hidden.slice(0, -1); };
  prefill(model, prompt, attention, settings.chunk, cache, keep_last);

  std::vector<int32_t> text = prompt;
  const auto& eos = model.config().eos_ids;
  for (int64_t step = 0; step < settings.max_new_tokens; ++step) {
    const int32_t id = sample(model.logits(last)[0], settings, step);
    text.push_back(id);
    if (on_token) on_token(id);
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) break;
    if (step + 1 == settings.max_new_tokens) break;
    const int64_t length = cache.length() + 1;
    if (frequencies_change(model.config().rope, cache.length(), length)) {
      cache = SequenceCache(model.config().num_layers, room);
      prefill(model, text, dense_attention, settings.chunk, cache, keep_last);
    } else {
      last = model.hidden(id_tensor({id}, model.device()), {{1}, {length}, 0}, dense_attention,
                          &cache);
    }
  }
  return {text.begin() + static_cast<ptrdiff_t>(prompt.size()), text.end()};
}

}  // namespace seer::models
