#include "seer/eval/recall.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/models/sparse_meter.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

// Whether one set of scores serves both: they differ in the selection only.
bool share_scores(const RecallMethod& a, const RecallMethod& b) {
  return a.gates == b.gates && a.sparse.method == b.sparse.method &&
         a.sparse.block == b.sparse.block && a.sparse.seed == b.sparse.seed;
}

// Ends a window from within the attention of a layer.
struct WindowStopped {};

// Sums over windows, on the model's device: nothing waits for it within a window.
class Measurement {
 public:
  Measurement(const models::Decoder& model, const std::vector<RecallMethod>& methods)
      : model_(model), methods_(methods), densities_(methods.size()) {
    for (const RecallMethod& m : methods) {
      choosers_.push_back(std::make_unique<models::SparseAttention>(model, m.gates, m.sparse));
      meters_.push_back(std::make_unique<models::SparseMeter>(model.device()));
    }
    const auto& config = model.config();
    sums_ = at::full({static_cast<int64_t>(methods.size()), config.num_layers, config.num_heads},
                     std::numeric_limits<double>::quiet_NaN(),
                     at::TensorOptions(model.device()).dtype(at::kDouble));
    has_sum_.resize(static_cast<size_t>(config.num_layers));
  }

  void run(const std::vector<int32_t>& window, const std::function<void()>& done,
           const std::function<bool()>& stop) {
    const auto length = static_cast<int64_t>(window.size());
    const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
    const auto ragged =
        torch_ops::make_ragged({length}, {length}, methods_[0].sparse.block, model_.device());
    const models::Attention attention = [&](const models::AttentionInput& in) {
      if (stop && stop()) throw WindowStopped();
      const at::Tensor o =
          models::window_cuts(in) ? models::dense_attention(in) : measure(in, ragged);
      if (done) done();
      return o;
    };
    model_.hidden(ids_of(window, model_.device()), sequences, attention);
    ++windows_;
    complete_ = sums_.cpu();
    for (size_t m = 0; m < meters_.size(); ++m) {
      densities_[m] = meters_[m]->statistics().density();
    }
  }

  bool has_any() const {
    return std::any_of(has_sum_.begin(), has_sum_.end(), [](bool has) { return has; });
  }
  // The mean over the windows that were complete.
  RecallRow row(size_t method) const {
    const models::SparseSettings& sparse = methods_[method].sparse;
    const Method as_method{.dense = false, .sparse = sparse};
    RecallRow row{method_name(as_method),
                  methods_[method].gates_name,
                  setting_of(as_method),
                  sparse.block,
                  0,
                  windows_,
                  densities_[method],
                  {},
                  0};
    row.recall = complete_[static_cast<int64_t>(method)] / windows_;
    for (size_t layer = 0; layer < has_sum_.size(); ++layer) {
      if (!has_sum_[layer]) continue;
      const at::Tensor finite = row.recall[static_cast<int64_t>(layer)].isfinite();
      row.not_finite += finite.logical_not().sum().item<int64_t>();
    }
    return row;
  }
  int64_t windows() const { return windows_; }

 private:
  // The layer's dense attention; what each method would have kept of it is added to the sums.
  at::Tensor measure(const models::AttentionInput& in, const torch_ops::Ragged& ragged) {
    const auto [o, lse, map] =
        torch_ops::pooled_attn(in.q, in.k, in.v, ragged, in.scale, /*causal=*/true,
                               /*group_max=*/true, /*normalise=*/false);
    const auto layer = static_cast<size_t>(in.layer);
    at::Tensor scores;
    for (size_t m = 0; m < methods_.size(); ++m) {
      models::SparseAttention& chooser = *choosers_[m];
      const auto watch = meters_[m]->watch();
      if (m == 0 || !share_scores(methods_[m - 1], methods_[m])) scores = chooser.scores(in);
      const at::Tensor kept = std::get<1>(chooser.attend(in, chooser.select(in, scores)));
      const at::Tensor mass = recall_by_head(kept, lse);
      at::Tensor sum = sums_[static_cast<int64_t>(m)][in.layer];
      has_sum_[layer] ? sum.add_(mass) : sum.copy_(mass);
    }
    has_sum_[layer] = true;
    return o;
  }

  const models::Decoder& model_;
  const std::vector<RecallMethod>& methods_;
  std::vector<std::unique_ptr<models::SparseAttention>> choosers_;
  std::vector<std::unique_ptr<models::SparseMeter>> meters_;
  at::Tensor sums_;            // [methods, layers, Hq] f64; NaN where nothing was added
  std::vector<bool> has_sum_;  // of each layer
  // Of the windows that were complete.
  int64_t windows_ = 0;
  at::Tensor complete_;  // the sums, on the CPU
  std::vector<double> densities_;
};

std::string percent(double share) {
  return report::fixed(100 * share, 1) + "%";
}

// [layers][heads] with six digits, which is what f32 log-sum-exps give.
nlohmann::json layers_of(const at::Tensor& recall) {
  nlohmann::json layers = nlohmann::json::array();
  const auto values = recall.accessor<double, 2>();
  for (int64_t layer = 0; layer < recall.size(0); ++layer) {
    nlohmann::json heads = nlohmann::json::array();
    for (int64_t head = 0; head < recall.size(1); ++head) {
      const double value = values[layer][head];
      heads.push_back(std::isnan(value) ? nlohmann::json(nullptr)
                                        : nlohmann::json(std::round(value * 1e6) / 1e6));
    }
    layers.push_back(heads);
  }
  return layers;
}

}  // namespace

at::Tensor recall_by_head(const at::Tensor& lse_of_chosen, const at::Tensor& lse) {
  return lse_of_chosen.sub(lse).exp().mean(1, /*keepdim=*/false, at::kDouble);
}

double mean_recall(const RecallRow& row) {
  return row.not_finite > 0 ? std::numeric_limits<double>::quiet_NaN()
                            : row.recall.nanmean().item<double>();
}

HeadRecall worst_head(const RecallRow& row) {
  const at::Tensor known = row.recall.nan_to_num(std::numeric_limits<double>::infinity());
  const auto at = known.argmin().item<int64_t>(), heads = row.recall.size(1);
  return {static_cast<int>(at / heads), static_cast<int>(at % heads), known.min().item<double>()};
}

std::vector<RecallRow> measure_recall(const models::Decoder& model,
                                      const std::vector<RecallMethod>& methods,
                                      const Windows& windows, const std::function<void()>& done,
                                      const std::function<bool()>& stop) {
  SEER_CHECK(!methods.empty() && !windows.ids.empty(), "recall of ", methods.size(), " methods on ",
             windows.ids.size(), " documents: want at least one of both");
  const at::NoGradGuard no_grad;
  Measurement measurement(model, methods);
  try {
    for (const auto& window : windows.ids) measurement.run(window, done, stop);
  } catch (const WindowStopped&) {
  }
  if (measurement.windows() == 0) return {};
  SEER_CHECK(measurement.has_any(), "every layer of the model has a sliding window shorter than ",
             windows.length, " tokens: there is no choice of blocks to measure");
  std::vector<RecallRow> rows;
  for (size_t m = 0; m < methods.size(); ++m) {
    rows.push_back(measurement.row(m));
    rows.back().length = windows.length;
  }
  return rows;
}

std::string trouble(const std::vector<RecallRow>& rows) {
  for (const RecallRow& row : rows) {
    if (row.not_finite == 0) continue;
    return message("the recall of ", row.method, " at ", to_text(row.setting),
                   " is not a finite number in ", counted(row.not_finite, "head"),
                   ": scores or attention hold NaN or infinity, a weight may be damaged; or try "
                   "--dtype f32");
  }
  return "";
}

nlohmann::json to_json(const std::vector<RecallRow>& rows) {
  nlohmann::json json = nlohmann::json::array();
  for (const RecallRow& row : rows) {
    const HeadRecall worst = worst_head(row);
    json.push_back(
        {{"method", row.method},
         {"gates", row.gates.empty() ? nlohmann::json(nullptr) : nlohmann::json(row.gates)},
         {"rule", row.setting.rule},
         {"strength", row.setting.strength},
         {"sparsity", asked_sparsity(row.setting)},
         {"block", row.block},
         {"length", row.length},
         {"documents", row.documents},
         {"density", row.density},
         {"mean_recall", mean_recall(row)},
         {"worst", {{"layer", worst.layer}, {"head", worst.head}, {"recall", worst.recall}}},
         {"recall", layers_of(row.recall)}});
    if (row.not_finite > 0) json.back()["not_finite"] = row.not_finite;
  }
  return json;
}

std::string to_table(const std::vector<RecallRow>& rows) {
  report::Table table(
      {"length", "method", "gates", "setting", "density", "recall", "worst head", "which"});
  for (const RecallRow& row : rows) {
    const HeadRecall worst = worst_head(row);
    table.add({std::to_string(row.length), row.method, row.gates, to_text(row.setting),
               report::fixed(row.density, 3), percent(mean_recall(row)), percent(worst.recall),
               message("layer ", worst.layer, " head ", worst.head)});
  }
  return table.text();
}

}  // namespace seer::eval
