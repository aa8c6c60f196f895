#include "seer/eval/planted/score.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/report/results.h"

namespace seer::eval {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Values of questions, each with the text that it is of.
using Values = std::vector<std::pair<size_t, double>>;

Mean mean_of(const Values& values) {
  if (values.empty()) return {kNone, kNone};
  const auto count = static_cast<double>(values.size());
  double mean = 0;
  for (const auto& [text, value] : values) mean += value / count;
  std::map<size_t, double> off;  // what each text adds to the mean's deviation
  for (const auto& [text, value] : values) off[text] += value - mean;
  if (off.size() < 2) return {mean, kNone};
  double squares = 0;
  for (const auto& [text, sum] : off) squares += sum * sum;
  const auto texts = static_cast<double>(off.size());
  return {mean, std::sqrt(squares * texts / (texts - 1)) / count};
}

PlantedRow make_row(const Method& method, int num_layers, const Planted& planted,
                    std::vector<Pass> passes, const std::vector<std::vector<Outcome>>& outcomes,
                    size_t windows) {
  passes.resize(windows);
  PlantedRow row;
  row.method = method_name(method);
  row.setting = setting_of(method);
  row.length = planted.length;
  row.windows = static_cast<int64_t>(windows);
  if (!method.dense) {
    row.block = method.sparse.block;
    row.density = density_of(passes, num_layers).all;
  }
  for (size_t w = 0; w < windows; ++w) {
    row.outcomes.insert(row.outcomes.end(), outcomes[w].begin(), outcomes[w].end());
  }
  row.attention_ms = median(passes, &Pass::attention_ms);
  row.prefill_ms = median(passes, &Pass::prefill_ms);
  return row;
}

void add(nlohmann::json& json, const std::string& name, const Mean& mean) {
  json[name] = report::rounded(mean.value);
  json[name + "_error"] = report::rounded(mean.error);
}

void add_score(nlohmann::json& json, const Score& score, bool is_dense) {
  json["questions"] = score.questions;
  add(json, "top1", score.top1);
  add(json, "exact", score.exact);
  add(json, "loss", score.loss);
  if (is_dense || std::isnan(score.top1_gain.value)) return;
  nlohmann::json gain;
  add(gain, "top1", score.top1_gain);
  add(gain, "exact", score.exact_gain);
  add(gain, "loss", score.loss_gain);
  json["minus_dense"] = gain;
}

nlohmann::json to_json(const PlantedRow& row, const Answered& of) {
  const PlantedRow* dense = dense_row(of.rows);
  const bool is_dense = &row == dense;
  nlohmann::json json = {{"method", row.method},
                         {"length", row.length},
                         {"windows", row.windows},
                         {"density", row.density},
                         {"sparsity", asked_sparsity(row.setting)},
                         {"attention_ms", row.attention_ms},
                         {"prefill_ms", row.prefill_ms}};
  if (!row.setting.rule.empty()) {
    json["rule"] = row.setting.rule;
    json["strength"] = row.setting.strength;
    json["block"] = row.block;
  }
  add_score(json, score(row, dense), is_dense);
  json["cells"] = nlohmann::json::array();
  for (size_t kind = 0; kind < of.planted.kinds.size(); ++kind) {
    for (size_t point = 0; point < of.planted.points.size(); ++point) {
      const Score part = score(row, dense, static_cast<int>(kind), static_cast<int>(point));
      if (part.questions == 0) continue;
      nlohmann::json cell = of.planted.kinds[kind].fields;
      cell.update(of.planted.points[point].fields);
      add_score(cell, part, is_dense);
      json["cells"].push_back(cell);
    }
  }
  return json;
}

}  // namespace

std::vector<Outcome> outcomes_of(const models::Decoder& model, const at::Tensor& hidden,
                                 const PlantedWindow& window) {
  std::vector<int64_t> before, answers;
  for (const Question& question : window.questions) {
    for (const int64_t at : question.answer) {
      before.push_back(at - 1);
      answers.push_back(window.ids[static_cast<size_t>(at)]);
    }
  }
  const auto on_device = [&](const std::vector<int64_t>& values) {
    return at::tensor(at::IntArrayRef(values), at::kLong).to(hidden.device());
  };
  const at::Tensor rows = on_device(before), targets = on_device(answers).unsqueeze(1);
  std::vector<at::Tensor> rights, losses;
  const int64_t count = rows.size(0), piece = 1024;
  for (int64_t i = 0; i < count; i += piece) {
    const int64_t n = std::min(piece, count - i);
    const at::Tensor logits =
        model.logits(hidden.index_select(0, rows.narrow(0, i, n))).to(at::kFloat);
    const at::Tensor target = targets.narrow(0, i, n);
    rights.push_back(logits.argmax(1, /*keepdim=*/true).eq(target).squeeze(1));
    losses.push_back((at::logsumexp(logits, {1}) - logits.gather(1, target).squeeze(1)));
  }
  const at::Tensor right = at::cat(rights).to(at::kCPU).to(at::kDouble).contiguous(),
                   loss = at::cat(losses).to(at::kCPU).to(at::kDouble).contiguous();
  const double *r = right.const_data_ptr<double>(), *l = loss.const_data_ptr<double>();
  std::vector<Outcome> outcomes;
  for (const Question& question : window.questions) {
    const auto tokens = static_cast<double>(question.answer.size());
    Outcome outcome{window.text, question.kind, question.point, 0, 1, 0};
    for (size_t k = 0; k < question.answer.size(); ++k, ++r, ++l) {
      outcome.top1 += *r / tokens;
      outcome.exact *= *r;
      outcome.loss += *l / tokens;
    }
    outcomes.push_back(outcome);
  }
  return outcomes;
}

std::vector<PlantedRow> answer(const models::Decoder& model, const models::Gates* gates,
                               const std::vector<Method>& methods, const Planted& planted,
                               const PlantedWatch& watch) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<Pass>> passes(methods.size());
  std::vector<std::vector<std::vector<Outcome>>> outcomes(methods.size());
  std::vector<PlantedRow> rows;
  by_window(
      methods.size(), planted.windows.size(),
      [&](size_t m, size_t w) {
        const PlantedWindow& window = planted.windows[w];
        Pass pass = run_pass(model, gates, methods[m], window.ids, watch);
        const at::Tensor hidden = std::exchange(pass.hidden, {});
        outcomes[m].push_back(outcomes_of(model, hidden, window));
        passes[m].push_back(std::move(pass));
        if (watch.pass) watch.pass();
      },
      [&](size_t m, size_t windows) {
        rows.push_back(make_row(methods[m], model.config().num_layers, planted, passes[m],
                                outcomes[m], windows));
        if (watch.row) watch.row(rows.back());
      });
  return rows;
}

Score score(const PlantedRow& row, const PlantedRow* dense, int kind, int point) {
  Values values[3], gains[3];
  constexpr double Outcome::* kFields[] = {&Outcome::top1, &Outcome::exact, &Outcome::loss};
  Score score;
  for (size_t i = 0; i < row.outcomes.size(); ++i) {
    const Outcome& outcome = row.outcomes[i];
    if ((kind != kAll && outcome.kind != kind) || (point != kAll && outcome.point != point)) {
      continue;
    }
    ++score.questions;
    for (int f = 0; f < 3; ++f) {
      const double value = outcome.*kFields[f];
      values[f].emplace_back(outcome.text, value);
      if (dense == nullptr || i >= dense->outcomes.size()) continue;
      gains[f].emplace_back(outcome.text, value - dense->outcomes[i].*kFields[f]);
    }
  }
  score.top1 = mean_of(values[0]);
  score.exact = mean_of(values[1]);
  score.loss = mean_of(values[2]);
  score.top1_gain = mean_of(gains[0]);
  score.exact_gain = mean_of(gains[1]);
  score.loss_gain = mean_of(gains[2]);
  return score;
}

const PlantedRow* dense_row(const std::vector<PlantedRow>& rows) {
  const auto found = std::find_if(rows.begin(), rows.end(),
                                  [](const PlantedRow& row) { return row.method == "dense"; });
  return found == rows.end() ? nullptr : &*found;
}

std::string trouble(const std::vector<Answered>& all) {
  for (const Answered& of : all) {
    for (const PlantedRow& row : of.rows) {
      const auto broken =
          std::count_if(row.outcomes.begin(), row.outcomes.end(),
                        [](const Outcome& outcome) { return !std::isfinite(outcome.loss); });
      if (broken == 0) continue;
      const std::string setting = to_text(row.setting);
      return message("the loss of ", row.method, setting.empty() ? "" : " at " + setting, ", ",
                     row.length, " tokens is not a finite number for ", broken, " of ",
                     counted(static_cast<int64_t>(row.outcomes.size()), "question"),
                     ": the logits hold NaN or infinity, a weight may be damaged; or try "
                     "--dtype f32");
    }
  }
  return "";
}

nlohmann::json to_json(const std::vector<Answered>& all) {
  nlohmann::json json = nlohmann::json::array();
  for (const Answered& of : all) {
    for (const PlantedRow& row : of.rows) json.push_back(to_json(row, of));
  }
  return json;
}

}  // namespace seer::eval
