// A whole prompt through a model: time to the first token, where it goes, and the memory that it
// takes beyond the weights.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/progress.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"
#include "seer/bench/bench.h"
#include "seer/bench/op_times.h"
#include "seer/bench/peak_memory.h"
#include "seer/models/sparse_attention.h"
#include "seer/models/sparse_meter.h"
#include "seer/report/table.h"
#include "seer/torch/stopwatch.h"

namespace seer::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// One of torch's dense attentions and no other, while it lives: what it does not take is an error.
class OnlyDense {
 public:
  explicit OnlyDense(const std::string& name) {
    set(name == "FlashAttention-2", name == "cuDNN", /*others=*/false);
  }
  ~OnlyDense() { set(true, true, true); }
  OnlyDense(const OnlyDense&) = delete;
  OnlyDense& operator=(const OnlyDense&) = delete;

 private:
  static void set(bool flash, bool cudnn, bool others) {
    auto& context = at::globalContext();
    context.setSDPUseFlash(flash);
    context.setSDPUseCuDNN(cudnn);
    context.setSDPUseMemEfficient(others);
    context.setSDPUseMath(others);
  }
};

struct Prompt {
  at::Tensor ids;
  models::Sequences sequences;
};

// A prompt up to its first token, by one kind of attention.
class Variant {
 public:
  // kind: of dense attention, "" torch's choice.
  Variant(const models::Decoder& model, const std::string& kind)
      : name(kind.empty() ? "dense" : "dense, " + kind), model_(model), kind_(kind) {}
  // `even`: as many blocks a row as other methods.
  Variant(const models::Decoder& model, const models::Gates& gates, const std::string& method,
          const torch_ops::Selection& selection, bool even)
      : name(method), model_(model) {
    const models::SparseSettings settings{.method = method,
                                          .selection = selection,
                                          .block = gates.config().block_size,
                                          .seed = 0,
                                          .even = even,
                                          .form = {}};
    sparse_ = std::make_unique<models::SparseAttention>(model, &gates, settings);
  }

  bool is_dense() const { return !sparse_; }

  void run(const Prompt& prompt) {
    const at::Device device = model_.device();
    torch_ops::Stopwatch dense_time(device);
    OpTimes products_time({{"products", {"aten::linear"}}}, device);
    models::SparseMeter meter(device);
    const auto watch = meter.watch();
    const models::Attention attention = [&](const models::AttentionInput& input) {
      if (sparse_) return (*sparse_)(input);
      const auto span = dense_time.span();
      // Layers with a window are the same in all runs: torch's choice, which takes a mask.
      std::optional<OnlyDense> only;
      if (!kind_.empty() && !models::window_cuts(input)) only.emplace(kind_);
      return models::dense_attention(input);
    };
    const PeakMemory peak(device);
    const auto begin = Clock::now();
    const at::Tensor hidden = model_.hidden(prompt.ids, prompt.sequences, attention);
    model_.logits(hidden.slice(0, -1)).argmax(-1);
    torch_ops::synchronize(device);
    Run run{.total = 1e3 * seconds_since(begin),
            .products = 1e3 * products_time.seconds()["products"]};
    if (sparse_) {
      const models::SparseStatistics s = meter.statistics();
      run.gate = 1e3 * s.score_seconds;
      run.select = 1e3 * s.select_seconds;
      run.attention = 1e3 * s.attention_seconds;
      density_ = s.density();
    } else {
      run.attention = 1e3 * dense_time.seconds();
    }
    runs_.push_back(run);
    peak_mib_ = std::max(peak_mib_, peak.mib());
  }

  // A run that does not count. False, having said so, where torch's attention of this kind does not
  // take the model.
  bool warm_up(const Prompt& prompt) {
    try {
      run(prompt);
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const c10::Error& error) {
      if (kind_.empty()) throw;
      print_line(message("seer bench: ", name, " is left out: torch says ",
                         shown(first_line(error.what_without_backtrace()), 300)));
      return false;
    }
    runs_.clear();
    peak_mib_ = 0;
    return true;
  }

  // That of the run with the median time: parts and total belong together.
  nlohmann::json row() {
    std::sort(runs_.begin(), runs_.end(),
              [](const Run& a, const Run& b) { return a.total < b.total; });
    const Run& run = runs_[runs_.size() / 2];
    return {{"implementation", name},
            {"density", density_},
            {"lists", is_dense()       ? "dense"
                      : name == "seer" ? "gate"
                                       : name},
            {"median_ms", run.total},
            {"min_ms", runs_.front().total},
            {"max_ms", runs_.back().total},
            {"runs", runs_.size()},
            {"kept_tflops", nullptr},
            {"gate_ms", run.gate},
            {"select_ms", run.select},
            {"attention_ms", run.attention},
            {"products_ms", run.products},
            {"rest_ms", run.total - run.gate - run.select - run.attention - run.products},
            {"peak_mib", peak_mib_}};
  }

  const std::string name;

 private:
  struct Run {  // milliseconds
    double total = 0, gate = 0, select = 0, attention = 0, products = 0;
  };
  const models::Decoder& model_;
  const std::string kind_;
  std::unique_ptr<models::SparseAttention> sparse_;
  std::vector<Run> runs_;
  double density_ = 1, peak_mib_ = 0;
};

void prefill_prompt(const models::Decoder& model, const models::Gates& gates,
                    const std::string& name, int64_t length, const Request& request,
                    nlohmann::json& rows) {
  const at::NoGradGuard no_grad;
  const at::Device device = model.device();
  const at::Tensor ids = at::randint(model.config().vocab_size, {length}, at::kLong).to(device);
  const Prompt prompt{ids, {.q_lens = {length}, .k_lens = {length}, .prompt_len = 0}};

  std::list<Variant> variants;
  if (device.is_cuda()) {
    variants.emplace_back(model, "FlashAttention-2");
    variants.emplace_back(model, "cuDNN");
  } else {
    variants.emplace_back(model, "");
  }
  for (const std::string& method : request.methods) {
    for (const double density : request.densities) {
      torch_ops::Selection selection;
      selection.strength = {density};
      variants.emplace_back(model, gates, method, selection, request.methods.size() > 1);
    }
  }

  // In turn, so that all of them meet the chip as warm, and in an order drawn for each round: at its
  // power limit a chip's clock still carries what ran before.
  variants.remove_if([&](Variant& variant) { return !variant.warm_up(prompt); });
  std::vector<Variant*> order;
  for (Variant& variant : variants) order.push_back(&variant);
  Random random(/*seed=*/0);
  const double most = request.seconds * static_cast<double>(variants.size());
  const auto begin = Clock::now();
  for (int done = 0; done < request.runs || seconds_since(begin) < most; ++done) {
    for (size_t left = order.size(); left > 1; --left) {
      std::swap(order[left - 1], order[random.below(left)]);
    }
    for (Variant* variant : order) variant->run(prompt);
  }

  // Of each dense run: what of it is not attention. The faster one is what sparse runs are held to.
  std::map<std::string, double> beside;
  std::string fastest;
  double least = 0;
  for (Variant& variant : variants) {
    nlohmann::json row = variant.row();
    row.update({{"model", name},
                {"heads_q", model.config().num_heads},
                {"heads_kv", model.config().num_kv_heads},
                {"head_dim", model.config().head_dim},
                {"len_q", length},
                {"len_k", length},
                {"dtype", model.dtype() == at::kFloat ? "f32" : "bf16"}});
    const double total = row["median_ms"], attention = row["attention_ms"];
    if (variant.is_dense()) {
      beside[variant.name] = total - attention;
      if (fastest.empty() || total < least) fastest = variant.name, least = total;
    } else {
      for (const auto& [dense, ms] : beside) row["overheads"][dense] = total / (ms + attention) - 1;
      if (!fastest.empty()) row["overhead"] = row["overheads"][fastest];
    }
    rows.push_back(std::move(row));
  }
}

}  // namespace

void prefill(const Request& request, nlohmann::json& rows) {
  for_each_model(
      request, /*needs_gates=*/true,
      [&](const models::Decoder& model, const models::Gates* gates, const std::string& name) {
        for (const int64_t length : request.lengths) {
          prefill_prompt(model, *gates, name, length, request, rows);
        }
      });
}

// Where the time of a prompt goes.
std::string prefill_table(const nlohmann::json& rows) {
  report::Table table({"model", "length", "implementation", "density", "first token", "gate",
                       "selection", "attention", "products", "rest", "overhead", "peak MiB"});
  for (const auto& r : rows) {
    table.add({r["model"], std::to_string(r["len_q"].get<int>()), r["implementation"],
               report::fixed(r["density"], 3), ms_text(r["median_ms"], 1), ms_text(r["gate_ms"], 1),
               ms_text(r["select_ms"], 1), ms_text(r["attention_ms"], 1),
               ms_text(r["products_ms"], 1), ms_text(r["rest_ms"], 1),
               r.contains("overhead") ? percent_text(r["overhead"]) : "",
               report::fixed(r["peak_mib"], 0)});
  }
  return table.text();
}

}  // namespace seer::bench
