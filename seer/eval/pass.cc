#include "seer/eval/pass.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "seer/eval/windows.h"
#include "seer/torch/stopwatch.h"

namespace seer::eval {

Pass run_pass(const models::Decoder& model, const models::Gates* gates, const Method& method,
              const std::vector<int32_t>& window, const PassWatch& watch) {
  const at::Tensor ids = ids_of(window, model.device());
  const auto length = static_cast<int64_t>(window.size());
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

  std::optional<models::SparseAttention> sparse;  // dense attention needs no gates and no blocks
  if (!method.dense) sparse.emplace(model, gates, method.sparse);
  models::SparseMeter meter(model.device());
  const auto steps = meter.watch();
  torch_ops::Stopwatch attention_time(model.device()), prefill_time(model.device());
  Pass pass;
  const auto attention = [&](const models::AttentionInput& input) {
    if (watch.stop && watch.stop()) throw PassStopped();
    if (watch.part) watch.part(static_cast<double>(input.layer) / model.config().num_layers);
    if (!method.dense && !models::window_cuts(input)) pass.layers.push_back(input.layer);
    const auto span = attention_time.span();
    return method.dense ? models::dense_attention(input) : (*sparse)(input);
  };
  {
    const auto span = prefill_time.span();
    pass.hidden = model.hidden(ids, sequences, attention);
  }
  const models::SparseStatistics s = meter.statistics();
  pass.attention_ms = 1e3 * attention_time.seconds();
  pass.score_ms = 1e3 * s.score_seconds;
  pass.select_ms = 1e3 * s.select_seconds;
  pass.prefill_ms = 1e3 * prefill_time.seconds();
  pass.kept = s.calls;
  return pass;
}

Density density_of(const std::vector<Pass>& passes, int num_layers) {
  std::vector<double> kept(static_cast<size_t>(num_layers)), causal(kept);
  for (const Pass& pass : passes) {
    for (size_t i = 0; i < pass.kept.size(); ++i) {
      const auto layer = static_cast<size_t>(pass.layers[i]);
      kept[layer] += pass.kept[i].kept;
      causal[layer] += pass.kept[i].causal;
    }
  }
  Density density;
  double all_kept = 0, all_causal = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    all_kept += kept[i];
    all_causal += causal[i];
    density.layers.push_back(causal[i] > 0 ? kept[i] / causal[i]
                                           : std::numeric_limits<double>::quiet_NaN());
  }
  if (all_causal > 0) density.all = all_kept / all_causal;
  return density;
}

double median(const std::vector<Pass>& passes, double Pass::* field) {
  if (passes.empty()) return 0;
  std::vector<double> values;
  for (const Pass& pass : passes) values.push_back(pass.*field);
  const auto middle = values.begin() + static_cast<ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void by_window(size_t methods, size_t windows,
               const std::function<void(size_t method, size_t window)>& run,
               const std::function<void(size_t method, size_t windows)>& tell) {
  std::vector<size_t> done(methods);
  size_t told = 0;
  const auto tell_next = [&](size_t of) {
    const size_t method = told++;
    if (of > 0) tell(method, of);
  };
  const auto tell_rest = [&] {
    const size_t all = done.empty() ? 0 : done.back();
    while (told < methods) tell_next(all > 0 ? all : done[told]);
  };
  try {
    for (size_t w = 0; w < windows; ++w) {
      for (size_t m = 0; m < methods; ++m) {
        run(m, w);
        ++done[m];
        if (w + 1 == windows) tell_next(windows);
      }
    }
  } catch (const PassStopped&) {
    tell_rest();
  } catch (...) {
    tell_rest();
    throw;
  }
}

}  // namespace seer::eval
