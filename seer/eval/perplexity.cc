#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/report/table.h"
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
};

struct Runner {
  const models::Decoder& model;
  const models::Gates* gates;

  Pass operator()(const Method& method, const std::vector<int32_t>& window,
                  models::SparseStatistics& statistics) const {
    const at::Tensor ids = ids_of(window, model.device());
    const auto length = static_cast<int64_t>(window.size());
    const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

    models::SparseAttention sparse(model, gates, method.sparse);
    torch_ops::Stopwatch attention_time(model.device()), prefill_time(model.device());
    const models::Attention attention = [&](const models::AttentionInput& input) {
      const auto span = attention_time.span();
      return method.dense ? models::dense_attention(input) : sparse(input);
    };
    at::Tensor hidden;
    {
      const auto span = prefill_time.span();
      hidden = model.hidden(ids, sequences, attention);
    }
    const double nll = mean_nll(model, hidden, ids);

    const models::SparseStatistics s = sparse.statistics();
    statistics.kept_blocks += s.kept_blocks;
    statistics.causal_blocks += s.causal_blocks;
    return {nll, 1e3 * attention_time.seconds(), 1e3 * s.score_seconds, 1e3 * s.select_seconds,
            1e3 * prefill_time.seconds()};
  }
};

Row make_row(const Method& method, const Windows& windows, const std::vector<Pass>& passes,
             const models::SparseStatistics& statistics) {
  const auto column = [&](double Pass::* field) {
    std::vector<double> values;
    for (const Pass& pass : passes) values.push_back(pass.*field);
    return values;
  };
  double nll = 0;
  for (const Pass& pass : passes) nll += pass.nll / static_cast<double>(passes.size());
  Row row;
  row.method = method_name(method);
  row.setting = setting_of(method);
  if (!method.dense) row.density = statistics.density();
  row.length = windows.length;
  row.documents = static_cast<int64_t>(windows.ids.size());
  row.perplexity = std::exp(nll);
  row.attention_ms = median(column(&Pass::attention_ms));
  row.score_ms = median(column(&Pass::score_ms));
  row.select_ms = median(column(&Pass::select_ms));
  row.prefill_ms = median(column(&Pass::prefill_ms));
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
                         const std::function<void()>& done) {
  const at::NoGradGuard no_grad;
  const Runner runner{model, gates};
  std::vector<std::vector<Pass>> passes(methods.size());
  std::vector<models::SparseStatistics> statistics(methods.size());
  // Window by window, so that a slow moment of the machine falls on all methods alike.
  for (const auto& window : windows.ids) {
    for (size_t m = 0; m < methods.size(); ++m) {
      passes[m].push_back(runner(methods[m], window, statistics[m]));
      if (done) done();
    }
  }
  std::vector<Row> rows;
  for (size_t m = 0; m < methods.size(); ++m) {
    rows.push_back(make_row(methods[m], windows, passes[m], statistics[m]));
  }
  return rows;
}

nlohmann::json to_json(const Row& row) {
  nlohmann::json json = {{"method", row.method},        {"length", row.length},
                         {"documents", row.documents},  {"perplexity", row.perplexity},
                         {"density", row.density},      {"attention_ms", row.attention_ms},
                         {"prefill_ms", row.prefill_ms}};
  json["sparsity"] = asked_sparsity(row.setting);
  if (!row.setting.rule.empty()) {
    json["rule"] = row.setting.rule;
    json["strength"] = row.setting.strength;
    json["score_ms"] = row.score_ms;
    json["select_ms"] = row.select_ms;
  }
  return json;
}

nlohmann::json to_json(const std::vector<Row>& rows) {
  nlohmann::json json = nlohmann::json::array();
  for (const Row& row : rows) json.push_back(to_json(row));
  return json;
}

std::string to_table(const std::vector<Row>& rows) {
  report::Table table(
      {"length", "method", "setting", "density", "perplexity", "vs dense", "attention", "prefill"});
  double dense = 0;
  for (const Row& row : rows) {
    if (row.method == "dense") dense = row.perplexity;
    table.add({std::to_string(row.length), row.method, to_text(row.setting),
               report::fixed(row.density, 3), report::fixed(row.perplexity, 3),
               dense > 0 ? "x" + report::fixed(row.perplexity / dense, 4) : "",
               report::fixed(row.attention_ms, 0) + " ms",
               report::fixed(row.prefill_ms, 0) + " ms"});
  }
  return table.text();
}

}  // namespace seer::eval
