#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/report/table.h"

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
    const at::Tensor ids =
        at::tensor(at::IntArrayRef(std::vector<int64_t>(window.begin(), window.end())), at::kLong)
            .to(model.device());
    const auto length = static_cast<int64_t>(window.size());
    const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

    models::SparseAttention sparse(model, gates, method.sparse);
    models::DeviceTime attention_time, prefill_time;
    const models::Attention attention = [&](const models::AttentionInput& input) {
      const models::DeviceTime::Span span(attention_time, input.q.device());
      return method.dense ? models::dense_attention(input) : sparse(input);
    };
    at::Tensor hidden;
    {
      const models::DeviceTime::Span span(prefill_time, model.device());
      hidden = model.hidden(ids, sequences, attention);
    }
    const double nll = mean_nll(model, hidden, ids);

    const auto& s = sparse.statistics;
    statistics.add_blocks(s);
    return {nll, 1e3 * attention_time.seconds(), 1e3 * s.score.seconds(), 1e3 * s.select.seconds(),
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
  row.method = method.dense                                   ? "dense"
               : method.sparse.scorer == models::Scorer::gate ? "seer"
                                                              : models::name(method.sparse.scorer);
  if (!method.dense) {
    row.rule = method.sparse.selection.rule;
    row.strength = method.sparse.selection.strength.at(0);
    row.density = statistics.density();
  }
  row.length = windows.length;
  row.documents = static_cast<int64_t>(windows.ids.size());
  row.perplexity = std::exp(nll);
  row.attention_ms = median(column(&Pass::attention_ms));
  row.score_ms = median(column(&Pass::score_ms));
  row.select_ms = median(column(&Pass::select_ms));
  row.prefill_ms = median(column(&Pass::prefill_ms));
  return row;
}

// Whether the rule's strength is a share of the blocks.
bool is_by_share(const Row& row) {
  return row.rule == "nz_ratio" || row.rule == "head_budget";
}

double asked_sparsity(const Row& row) {
  return std::round((1 - row.strength) * 1e6) / 1e6;
}

// What a sparse row was asked for, as "sparsity 0.9" or "threshold 0.005".
std::string setting_of(const Row& row) {
  if (row.rule.empty()) return "";
  if (!is_by_share(row)) return row.rule + " " + report::number(row.strength, 4);
  const std::string text = "sparsity " + report::number(asked_sparsity(row), 4);
  return row.rule == "nz_ratio" ? text : row.rule + ", " + text;
}

}  // namespace

Windows document_windows(const std::vector<std::vector<int32_t>>& documents, int64_t length,
                         double min_ratio, int64_t max_documents, int64_t bos_id) {
  SEER_CHECK(length >= 2, "length is ", length, ", want at least 2 tokens");
  Windows windows{.length = length, .ids = {}};
  size_t longest = 0;
  for (const auto& document : documents) {
    longest = std::max(longest, document.size());
    if (static_cast<double>(document.size()) < min_ratio * static_cast<double>(length)) continue;
    if (static_cast<int64_t>(windows.ids.size()) == max_documents) break;
    std::vector<int32_t> window;
    if (bos_id >= 0) window.push_back(static_cast<int32_t>(bos_id));
    window.insert(window.end(), document.begin(),
                  document.begin() + std::min<int64_t>(document.size(), length - window.size()));
    if (static_cast<int64_t>(window.size()) == length) windows.ids.push_back(std::move(window));
  }
  SEER_CHECK(!windows.ids.empty(), "no document has ", min_ratio, " x ", length,
             " tokens (the longest has ", longest,
             "): choose shorter --lengths, a lower --min-ratio, or longer texts");
  return windows;
}

double mean_nll(const models::Decoder& model, const at::Tensor& hidden, const at::Tensor& ids) {
  const int64_t count = ids.size(0) - 1, piece = 1024;
  at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
  for (int64_t i = 0; i < count; i += piece) {
    const int64_t n = std::min(piece, count - i);
    const at::Tensor logits = model.logits(hidden.narrow(0, i, n)).to(at::kFloat);
    const at::Tensor target = ids.narrow(0, i + 1, n).unsqueeze(1);
    const at::Tensor nll = at::logsumexp(logits, {1}) - logits.gather(1, target).squeeze(1);
    sum.add_(nll.sum(at::kDouble));
  }
  return sum.item<double>() / static_cast<double>(count);
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
  // Null where the rule sets another limit.
  json["sparsity"] = row.rule.empty()   ? nlohmann::json(0.0)
                     : is_by_share(row) ? nlohmann::json(asked_sparsity(row))
                                        : nlohmann::json(nullptr);
  if (!row.rule.empty()) {
    json["rule"] = row.rule;
    json["strength"] = row.strength;
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
    table.add({std::to_string(row.length), row.method, setting_of(row),
               report::fixed(row.density, 3), report::fixed(row.perplexity, 3),
               dense > 0 ? "x" + report::fixed(row.perplexity / dense, 4) : "",
               report::fixed(row.attention_ms, 0) + " ms",
               report::fixed(row.prefill_ms, 0) + " ms"});
  }
  return table.text();
}

}  // namespace seer::eval
