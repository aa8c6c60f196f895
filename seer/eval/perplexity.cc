#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "seer/base/error.h"
#include "seer/torch/stopwatch.h"

namespace seer::eval {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What one method did on one window.
struct Pass {
  double nll, attention_ms, score_ms, select_ms, prefill_ms;
  std::vector<int> layers;                           // that chose blocks
  std::vector<models::SparseStatistics::Call> kept;  // of each of them
};

// Ends a pass from within the attention of a layer.
struct PassStopped {};

struct Runner {
  const models::Decoder& model;
  const models::Gates* gates;
  const Watch& watch;

  // The layers' attention, timed.
  models::Attention attention_of(const Method& method, models::SparseAttention* sparse,
                                 torch_ops::Stopwatch& time, std::vector<int>& layers) const {
    return [&method, sparse, &time, &layers, this](const models::AttentionInput& input) {
      if (watch.stop && watch.stop()) throw PassStopped();
      if (watch.part) watch.part(static_cast<double>(input.layer) / model.config().num_layers);
      if (!method.dense && !models::window_cuts(input)) layers.push_back(input.layer);
      const auto span = time.span();
      return method.dense ? models::dense_attention(input) : (*sparse)(input);
    };
  }

  Pass operator()(const Method& method, const std::vector<int32_t>& window) const {
    const at::Tensor ids = ids_of(window, model.device());
    const auto length = static_cast<int64_t>(window.size());
    const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

    std::optional<models::SparseAttention> sparse;  // dense attention needs no gates and no blocks
    if (!method.dense) sparse.emplace(model, gates, method.sparse);
    models::SparseMeter meter(model.device());
    const auto watch = meter.watch();
    torch_ops::Stopwatch attention_time(model.device()), prefill_time(model.device());
    std::vector<int> layers;
    at::Tensor hidden;
    {
      const auto span = prefill_time.span();
      hidden =
          model.hidden(ids, sequences,
                       attention_of(method, sparse ? &*sparse : nullptr, attention_time, layers));
    }
    const double nll = mean_nll(model, hidden, ids);

    const models::SparseStatistics s = meter.statistics();
    return {nll,
            1e3 * attention_time.seconds(),
            1e3 * s.score_seconds,
            1e3 * s.select_seconds,
            1e3 * prefill_time.seconds(),
            layers,
            s.calls};
  }
};

// Sets the row's densities, of the whole and of each layer.
void add_density(const std::vector<Pass>& passes, int num_layers, Row& row) {
  std::vector<double> kept(static_cast<size_t>(num_layers)), causal(kept);
  for (const Pass& pass : passes) {
    for (size_t i = 0; i < pass.kept.size(); ++i) {
      const auto layer = static_cast<size_t>(pass.layers[i]);
      kept[layer] += pass.kept[i].kept;
      causal[layer] += pass.kept[i].causal;
    }
  }
  double all_kept = 0, all_causal = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    all_kept += kept[i];
    all_causal += causal[i];
    row.layer_density.push_back(causal[i] > 0 ? kept[i] / causal[i]
                                              : std::numeric_limits<double>::quiet_NaN());
  }
  if (all_causal > 0) row.density = all_kept / all_causal;
}

Row make_row(const Method& method, int num_layers, int64_t length,
             const std::vector<Pass>& passes) {
  const auto column = [&](double Pass::* field) {
    std::vector<double> values;
    for (const Pass& pass : passes) values.push_back(pass.*field);
    return values;
  };
  Row row;
  double nll = 0;
  for (const Pass& pass : passes) {
    nll += pass.nll / static_cast<double>(passes.size());
    if (!std::isfinite(std::exp(pass.nll))) ++row.not_finite;
  }
  row.method = method_name(method);
  row.setting = setting_of(method);
  if (!method.dense) {
    add_density(passes, num_layers, row);
    row.block = method.sparse.block;
  }
  row.length = length;
  row.documents = static_cast<int64_t>(passes.size());
  row.nll = column(&Pass::nll);
  row.perplexity = std::exp(nll);
  row.attention_ms = median(column(&Pass::attention_ms));
  row.score_ms = median(column(&Pass::score_ms));
  row.select_ms = median(column(&Pass::select_ms));
  row.prefill_ms = median(column(&Pass::prefill_ms));
  return row;
}

// What has been measured so far, and the rows of it that are told.
class Comparison {
 public:
  Comparison(const std::vector<Method>& methods, int num_layers, int64_t length, const Watch& watch)
      : methods_(methods),
        num_layers_(num_layers),
        length_(length),
        watch_(watch),
        done_(methods.size()) {}

  void add(size_t method, Pass pass) {
    done_[method].push_back(std::move(pass));
    if (watch_.pass) watch_.pass();
  }
  // Tells the method's row of its first `windows` windows.
  void tell(size_t method, size_t windows) {
    const std::vector<Pass>& done = done_[method];
    const std::vector<Pass> passes(done.begin(), done.begin() + static_cast<ptrdiff_t>(windows));
    rows_.push_back(make_row(methods_[method], num_layers_, length_, passes));
    if (watch_.row) watch_.row(rows_.back());
  }
  // Where the work ends early: the rows that were not told yet.
  void tell_rest() {
    size_t all = done_.empty() ? 0 : done_.back().size();
    for (size_t m = rows_.size(); m < methods_.size(); ++m) {
      const size_t windows = all > 0 ? all : done_[m].size();
      if (windows > 0) tell(m, windows);
    }
  }
  std::vector<Row> rows() && { return std::move(rows_); }

 private:
  const std::vector<Method>& methods_;
  int num_layers_;
  int64_t length_;
  const Watch& watch_;
  std::vector<std::vector<Pass>> done_;  // of each method
  std::vector<Row> rows_;                // in the order of the methods
};

}  // namespace

double mean_nll(const models::Decoder& model, const at::Tensor& hidden, const at::Tensor& ids) {
  const int64_t count = ids.size(0) - 1, piece = 1024;
  double sum = 0;
  for (int64_t i = 0; i < count; i += piece) {
    const int64_t n = std::min(piece, count - i);
    const at::Tensor logits = model.logits(hidden.narrow(0, i, n)).to(at::kFloat);
    const at::Tensor target = ids.narrow(0, i + 1, n).unsqueeze(1);
    const at::Tensor nll = at::logsumexp(logits, {1}) - logits.gather(1, target).squeeze(1);
    sum += nll.sum(at::kDouble).item<double>();
  }
  return sum / static_cast<double>(count);
}

std::vector<Row> compare(const models::Decoder& model, const models::Gates* gates,
                         const std::vector<Method>& methods, const Windows& windows,
                         const Watch& watch) {
  const at::NoGradGuard no_grad;
  const Runner runner{model, gates, watch};
  Comparison comparison(methods, model.config().num_layers, windows.length, watch);
  const size_t count = windows.ids.size();
  try {
    // Window by window, so that a slow moment of the machine falls on all methods alike.
    for (size_t w = 0; w < count; ++w) {
      for (size_t m = 0; m < methods.size(); ++m) {
        comparison.add(m, runner(methods[m], windows.ids[w]));
        if (w + 1 == count) comparison.tell(m, count);
      }
    }
  } catch (const PassStopped&) {
    comparison.tell_rest();
  } catch (...) {
    comparison.tell_rest();
    throw;
  }
  return std::move(comparison).rows();
}

}  // namespace seer::eval
