#include "seer/eval/perplexity_table.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/report/results.h"

namespace seer::eval {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// The row of the first model that `is_wanted` takes, of that length; null: none.
template <class Wanted>
const Row* first_model_row(const std::vector<Row>& rows, int64_t length, const Wanted& is_wanted) {
  for (const Row& row : rows) {
    const bool is_first = row.subject.model == rows[0].subject.model;
    if (is_first && row.length == length && is_wanted(row)) return &row;
  }
  return nullptr;
}

bool has_gates(const Row& row) {
  return row.method == "seer" || row.method == "gate";
}

bool uses_lookups(const Row& row) {
  return row.method == "seer" && row.subject.lookups;
}

// Logarithms of the ratio of perplexities, document by document.
std::vector<double> log_ratios(const Row& row, const Row& other) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(row.nll.size(), other.nll.size()); ++i) {
    ratios.push_back(row.nll[i] - other.nll[i]);
  }
  return ratios;
}

double mean(const std::vector<double>& values, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

nlohmann::json rounded(const std::vector<double>& values) {
  nlohmann::json list = nlohmann::json::array();
  for (const double value : values) list.push_back(report::rounded(value));
  return list;
}

nlohmann::json to_json(const Row& row, const std::vector<Row>& rows) {
  nlohmann::json json = {{"method", row.method},         {"length", row.length},
                         {"documents", row.documents},   {"perplexity", row.perplexity},
                         {"density", row.density},       {"attention_ms", row.attention_ms},
                         {"prefill_ms", row.prefill_ms}, {"nll", rounded(row.nll)}};
  if (row.not_finite > 0) json["not_finite"] = row.not_finite;
  json["sparsity"] = asked_sparsity(row.setting);
  if (!row.setting.rule.empty()) {
    json["rule"] = row.setting.rule;
    json["strength"] = row.setting.strength;
    json["block"] = row.block;
    json["score_ms"] = row.score_ms;
    json["select_ms"] = row.select_ms;
    json["density_by_layer"] = rounded(row.layer_density);
  }
  if (!row.subject.model.empty()) json["model"] = row.subject.model;
  if (!row.subject.trained.rule.empty()) {
    json["trained_rule"] = row.subject.trained.rule;
    json["trained_sparsity"] = asked_sparsity(row.subject.trained);
  }
  const Beside with = beside(row, rows);
  for (const auto& [name, value] : {std::pair{"vs_dense", with.ratio},
                                    {"vs_dense_error", with.error},
                                    {"excess", with.excess}}) {
    if (std::isfinite(value)) json[name] = report::rounded(value);
  }
  return json;
}

// What a row is called in an error.
std::string name_of(const Row& row) {
  const std::string setting = to_text(row.setting), model = row.subject.model;
  return message(model, model.empty() ? "" : ", ", row.method,
                 setting.empty() ? "" : " at " + setting, ", ", row.length, " tokens");
}

}  // namespace

Beside beside(const Row& row, const std::vector<Row>& rows) {
  Beside with{kNone, kNone, kNone};
  if (rows.empty()) return with;
  const Row* dense =
      first_model_row(rows, row.length, [](const Row& r) { return r.method == "dense"; });
  if (dense == nullptr) return with;
  const std::vector<double> ratios = log_ratios(row, *dense);
  const size_t count = ratios.size();
  if (count == 0) return with;
  const double log_ratio = mean(ratios, count);
  with.ratio = std::exp(log_ratio);
  if (count > 1) {
    double squares = 0;
    for (const double ratio : ratios) squares += (ratio - log_ratio) * (ratio - log_ratio);
    const auto n = static_cast<double>(count);
    with.error = with.ratio * std::sqrt(squares / (n - 1) / n);
  }
  if (!has_gates(row) || row.subject.model == rows[0].subject.model) return with;
  const Row* gates = first_model_row(rows, row.length, [&](const Row& r) {
    return has_gates(r) && uses_lookups(r) == uses_lookups(row) &&
           r.setting.rule == row.setting.rule && r.setting.strength == row.setting.strength;
  });
  if (gates == nullptr || gates->nll.size() < count) return with;
  const double theirs = std::expm1(mean(log_ratios(*gates, *dense), count));
  if (theirs > 0) with.excess = std::expm1(log_ratio) / theirs;
  return with;
}

std::string trouble(const std::vector<Row>& rows) {
  std::string first;
  int64_t others = -1;
  for (const Row& row : rows) {
    if (row.not_finite == 0) continue;
    if (++others > 0) continue;
    first = message("the perplexity of ", name_of(row), " is not a finite number on ",
                    row.not_finite, " of ", counted(row.documents, "document"));
  }
  if (first.empty()) return "";
  if (others > 0) first += message(" (and of ", counted(others, "other row"), ")");
  return first + ": the logits hold NaN or infinity, a weight may be damaged; or try --dtype f32";
}

nlohmann::json to_json(const std::vector<Row>& rows) {
  nlohmann::json json = nlohmann::json::array();
  for (const Row& row : rows) json.push_back(to_json(row, rows));
  return json;
}

RowLines::RowLines(const std::vector<Method>& methods, const std::vector<int64_t>& lengths,
                   const std::vector<Subject>& subjects)
    : has_names_(subjects.size() > 1), columns_([&] {
        size_t length = 0, model = 0, trained = 0, method = 0, setting = 0;
        const auto widen = [](size_t& width, const std::string& text) {
          width = std::max(width, text.size());
        };
        for (const int64_t l : lengths) widen(length, std::to_string(l));
        for (const Subject& s : subjects) {
          widen(model, s.model);
          widen(trained, to_text(s.trained));
        }
        for (const Method& m : methods) {
          widen(method, method_name(m));
          widen(setting, to_text(setting_of(m)));
        }
        std::vector<report::Columns::Column> columns{{"length", length, true}};
        if (has_names_) {
          columns.insert(columns.end(), {{"model", model}, {"trained at", trained}});
        }
        columns.insert(columns.end(), {{"method", method},
                                       {"setting", setting},
                                       {"density", 0, true},
                                       {"perplexity", 0, true},
                                       {"vs dense", 0, true}});
        if (has_names_) columns.insert(columns.end(), {{"error", 6, true}, {"excess", 0, true}});
        columns.insert(columns.end(), {{"attention", 0, true}, {"prefill", 9, true}});
        return report::Columns(columns);
      }()) {}

std::string RowLines::line(const Row& row) {
  rows_.push_back(row);
  const Beside with = beside(row, rows_);
  std::vector<std::string> cells{std::to_string(row.length)};
  if (has_names_) {
    cells.insert(cells.end(), {row.subject.model, to_text(row.subject.trained)});
  }
  cells.insert(cells.end(),
               {row.method, to_text(row.setting), report::fixed(row.density, 3),
                report::fixed(row.perplexity, 3), report::fixed_or_empty(with.ratio, 4, "x")});
  if (has_names_) {
    cells.insert(cells.end(),
                 {report::fixed_or_empty(with.error, 4), report::fixed_or_empty(with.excess, 2)});
  }
  cells.insert(cells.end(), {report::fixed(row.attention_ms, 0) + " ms",
                             report::fixed(row.prefill_ms, 0) + " ms"});
  return columns_.line(cells);
}

}  // namespace seer::eval
