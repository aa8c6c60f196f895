#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace seer::eval {
namespace {

// What one method did on the first windows, and how well it predicted each.
struct Measured {
  std::vector<Pass> passes;
  std::vector<double> nll;
};

// The row of the first `windows` windows.
Row make_row(const Method& method, int num_layers, int64_t length, Measured measured,
             size_t windows) {
  measured.passes.resize(windows);
  measured.nll.resize(windows);
  const std::vector<Pass>& passes = measured.passes;
  Row row;
  double sum = 0;
  for (const double nll : measured.nll) {
    sum += nll / static_cast<double>(windows);
    if (!std::isfinite(std::exp(nll))) ++row.not_finite;
  }
  row.method = method_name(method);
  row.setting = setting_of(method);
  if (!method.dense) {
    const Density density = density_of(passes, num_layers);
    row.density = density.all;
    row.layer_density = density.layers;
    row.block = method.sparse.block;
  }
  row.length = length;
  row.documents = static_cast<int64_t>(windows);
  row.nll = measured.nll;
  row.perplexity = std::exp(sum);
  row.attention_ms = median(passes, &Pass::attention_ms);
  row.score_ms = median(passes, &Pass::score_ms);
  row.select_ms = median(passes, &Pass::select_ms);
  row.prefill_ms = median(passes, &Pass::prefill_ms);
  return row;
}

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
  std::vector<Measured> measured(methods.size());
  std::vector<Row> rows;
  by_window(
      methods.size(), windows.ids.size(),
      [&](size_t m, size_t w) {
        Pass pass = run_pass(model, gates, methods[m], windows.ids[w], watch);
        const at::Tensor hidden = std::exchange(pass.hidden, {});
        const double nll = mean_nll(model, hidden, ids_of(windows.ids[w], model.device()));
        measured[m].passes.push_back(std::move(pass));
        measured[m].nll.push_back(nll);
        if (watch.pass) watch.pass();
      },
      [&](size_t m, size_t count) {
        rows.push_back(
            make_row(methods[m], model.config().num_layers, windows.length, measured[m], count));
        if (watch.row) watch.row(rows.back());
      });
  return rows;
}

}  // namespace seer::eval
