#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

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

// Ends a pass from within the attention of a layer.
struct PassStopped {};

struct Runner {
  const models::Decoder& model;
  const models::Gates* gates;
  const Watch& watch;

  // The layers' attention, timed.
  models::Attention attention_of(const Method& method, models::SparseAttention* sparse,
                                 torch_ops::Stopwatch& time) const {
    return [&method, sparse, &time, this](const models::AttentionInput& input) {
      if (watch.stop && watch.stop()) throw PassStopped();
      if (watch.part) watch.part(static_cast<double>(input.layer) / model.config().num_layers);
      const auto span = time.span();
      return method.dense ? models::dense_attention(input) : (*sparse)(input);
    };
  }

  Pass operator()(const Method& method, const std::vector<int32_t>& window,
                  models::SparseStatistics& statistics) const {
    const at::Tensor ids = ids_of(window, model.device());
    const auto length = static_cast<int64_t>(window.size());
    const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};

    std::optional<models::SparseAttention> sparse;  // dense attention needs no gates and no blocks
    if (!method.dense) sparse.emplace(model, gates, method.sparse);
    models::SparseMeter meter(model.device());
    const auto watch = meter.watch();
    torch_ops::Stopwatch attention_time(model.device()), prefill_time(model.device());
    at::Tensor hidden;
    {
      const auto span = prefill_time.span();
      hidden = model.hidden(ids, sequences,
                            attention_of(method, sparse ? &*sparse : nullptr, attention_time));
    }
    const double nll = mean_nll(model, hidden, ids);

    const models::SparseStatistics s = meter.statistics();
    statistics.kept_blocks += s.kept_blocks;
    statistics.causal_blocks += s.causal_blocks;
    return {nll, 1e3 * attention_time.seconds(), 1e3 * s.score_seconds, 1e3 * s.select_seconds,
            1e3 * prefill_time.seconds()};
  }
};

Row make_row(const Method& method, int64_t length, const std::vector<Pass>& passes,
             const models::SparseStatistics& statistics) {
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
    row.density = statistics.density();
    row.block = method.sparse.block;
  }
  row.length = length;
  row.documents = static_cast<int64_t>(passes.size());
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
  Comparison(const std::vector<Method>& methods, int64_t length, const Watch& watch)
      : methods_(methods), length_(length), watch_(watch), done_(methods.size()) {}

  void add(size_t method, const Pass& pass, const models::SparseStatistics& statistics) {
    Done& done = done_[method];
    done.passes.push_back(pass);
    done.kept.push_back(statistics);
    if (watch_.pass) watch_.pass();
  }
  // Tells the method's row of its first `windows` windows.
  void tell(size_t method, size_t windows) {
    const Done& done = done_[method];
    models::SparseStatistics sum;
    for (size_t w = 0; w < windows; ++w) {
      sum.kept_blocks += done.kept[w].kept_blocks;
      sum.causal_blocks += done.kept[w].causal_blocks;
    }
    const std::vector<Pass> passes(done.passes.begin(),
                                   done.passes.begin() + static_cast<ptrdiff_t>(windows));
    rows_.push_back(make_row(methods_[method], length_, passes, sum));
    if (watch_.row) watch_.row(rows_.back());
  }
  // Where the work ends early: the rows that were not told yet.
  void tell_rest() {
    size_t all = done_.empty() ? 0 : done_.back().passes.size();
    for (size_t m = rows_.size(); m < methods_.size(); ++m) {
      const size_t windows = all > 0 ? all : done_[m].passes.size();
      if (windows > 0) tell(m, windows);
    }
  }
  std::vector<Row> rows() && { return std::move(rows_); }

 private:
  struct Done {
    std::vector<Pass> passes;
    std::vector<models::SparseStatistics> kept;  // of each pass
  };
  const std::vector<Method>& methods_;
  int64_t length_;
  const Watch& watch_;
  std::vector<Done> done_;
  std::vector<Row> rows_;  // in the order of the methods
};

// What a row is called in an error.
std::string name_of(const Row& row) {
  const std::string setting = to_text(row.setting);
  return message(row.method, setting.empty() ? "" : " at " + setting, ", ", row.length, " tokens");
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
  const Runner runner{model, gates, watch};
  Comparison comparison(methods, windows.length, watch);
  const size_t count = windows.ids.size();
  try {
    // Window by window, so that a slow moment of the machine falls on all methods alike.
    for (size_t w = 0; w < count; ++w) {
      for (size_t m = 0; m < methods.size(); ++m) {
        models::SparseStatistics statistics;
        const Pass pass = runner(methods[m], windows.ids[w], statistics);
        comparison.add(m, pass, statistics);
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

std::string trouble(const std::vector<Row>& rows) {
  std::string first;
  int64_t others = -1;
  for (const Row& row : rows) {
    if (row.not_finite == 0) continue;
    if (++others > 0) continue;
    first = message("the perplexity of ", name_of(row), " is not a finite number on ",
                    row.not_finite, " of ", row.documents, " documents");
  }
  if (first.empty()) return "";
  if (others > 0) first += message(" (and of ", others, " other rows)");
  return first + ": the logits hold NaN or infinity, a weight may be damaged; or try --dtype f32";
}

nlohmann::json to_json(const Row& row) {
  nlohmann::json json = {{"method", row.method},        {"length", row.length},
                         {"documents", row.documents},  {"perplexity", row.perplexity},
                         {"density", row.density},      {"attention_ms", row.attention_ms},
                         {"prefill_ms", row.prefill_ms}};
  if (row.not_finite > 0) json["not_finite"] = row.not_finite;
  json["sparsity"] = asked_sparsity(row.setting);
  if (!row.setting.rule.empty()) {
    json["rule"] = row.setting.rule;
    json["strength"] = row.setting.strength;
    json["block"] = row.block;
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

RowLines::RowLines(const std::vector<Method>& methods, const std::vector<int64_t>& lengths)
    : columns_([&] {
        size_t length = 0, method = 0, setting = 0;
        for (const int64_t l : lengths) length = std::max(length, std::to_string(l).size());
        for (const Method& m : methods) {
          method = std::max(method, method_name(m).size());
          setting = std::max(setting, to_text(setting_of(m)).size());
        }
        return report::Columns({{"length", length, true},
                                {"method", method},
                                {"setting", setting},
                                {"density", 0, true},
                                {"perplexity", 0, true},
                                {"vs dense", 0, true},
                                {"attention", 0, true},
                                {"prefill", 9, true}});
      }()) {}

std::string RowLines::line(const Row& row) {
  if (length_ != row.length) dense_ = 0;
  length_ = row.length;
  if (row.method == "dense") dense_ = row.perplexity;
  const double ratio = row.perplexity / dense_;
  return columns_.line(
      {std::to_string(row.length), row.method, to_text(row.setting), report::fixed(row.density, 3),
       report::fixed(row.perplexity, 3), std::isfinite(ratio) ? "x" + report::fixed(ratio, 4) : "",
       report::fixed(row.attention_ms, 0) + " ms", report::fixed(row.prefill_ms, 0) + " ms"});
}

}  // namespace seer::eval
