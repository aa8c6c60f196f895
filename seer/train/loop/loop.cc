#include "seer/train/loop/loop.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/record_function.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"
#include "seer/train/loop/run_folder.h"

namespace seer::train {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMostRows = 64;     // steps whose metrics wait on the device
constexpr double kReadSeconds = 1;    // between two reads of them
constexpr int64_t kMostSkipped = 10;  // steps in a row
constexpr double kProbeSeconds = 5;   // of a long first step, after which its time is estimated
// In the sum over all processes of the signals that came: SIGINT and SIGTERM are told apart.
constexpr double kTerminate = 1e6;

class Loop {
 public:
  Loop(Task& task, const LoopSettings& settings)
      : task_(task),
        settings_(settings),
        groups_(task.groups()),
        names_(task.metrics()),
        ranks_(settings.ranks ? *settings.ranks : alone_),
        guard_(Ranks::same_signal_seconds()),
        folder_(open_folder()),
        parameters_(groups_, ranks_, settings.states_on_host) {
    const auto columns = static_cast<int64_t>(names_.size()) + 2;
    rows_ =
        at::empty({kMostRows, columns}, at::TensorOptions(parameters_.device()).dtype(at::kDouble));
  }

  RunResult run() {
    begin_ = read_at_ = Clock::now();
    progress_ = std::make_unique<Progress>(task_.name(), settings_.steps, 0, shows());
    resume();
    check_same_step();
    progress_ = std::make_unique<Progress>(task_.name(), settings_.steps, state_.step, shows());
    say_plan();
    int signal = 0;
    state_.validation_due |= settings_.steps == 0;
    while ((state_.step < settings_.steps || state_.validation_due) && signal == 0) {
      if (!state_.validation_due) one_step();
      const bool is_last = state_.step == settings_.steps;
      const bool validates = is_last || is_multiple(settings_.valid_every);
      const bool saves = is_last || is_multiple(settings_.save_every);
      const std::chrono::duration<double> unread = Clock::now() - read_at_;
      signal = stop_signal();
      // Whether to go on is asked after the same steps in all processes; clocks differ.
      const bool asks = validates || saves || signal != 0 || is_multiple(kMostSkipped);
      if (asks || waiting_ == kMostRows || unread.count() > kReadSeconds) read_metrics();
      if (asks) check_skipped();
      state_.validation_due = validates && signal != 0;
      if (validates && signal == 0) validate();
      if ((saves || signal != 0) && folder_) save();
    }
    if (settings_.on_step) settings_.on_step(state_.step);
    ranks_.meet();  // the last checkpoint is there
    if (signal != 0) stop(signal);
    SEER_CHECK(settings_.steps == 0 || state_.skipped_steps < settings_.steps,
               "the loss or the gradient was not finite in ",
               settings_.steps == 1 ? "the only step" : "all steps", " of ", settings_.out.string(),
               ", nothing is trained: lower the learning rate, or look for broken data");
    RunResult result;
    result.steps = state_.step;
    result.resumed_from = resumed_from_;
    result.tokens = state_.tokens;
    result.skipped_steps = state_.skipped_steps;
    result.seconds = seconds();
    result.loss = state_.loss;
    result.valid = state_.valid;
    progress_.reset();
    guard_.answer(stopped_when_done(task_.name(), settings_, "its last checkpoint is"));
    return result;
  }

 private:
  json own_settings() const { return run_settings(task_.name(), task_.settings(), settings_); }
  // Micro-batches of a step, one for each process at least.
  int64_t micro_batches(int64_t step) const {
    const int64_t count = task_.micro_batches(step), size = ranks_.size();
    SEER_CHECK(count >= size, task_.name(), ": step ", step + 1, " has ",
               counted(count, "micro-batch", "micro-batches"), ", too few for ",
               counted(size, "process", "processes"),
               ": choose more sequences, a smaller micro-batch, or fewer processes");
    return count;
  }
  // The first process makes or checks the folder; the others then find it.
  std::unique_ptr<RunFolder> open_folder() {
    micro_batches(0);  // before anything is written
    if (!settings_.keeps) return nullptr;
    std::unique_ptr<RunFolder> folder;
    if (ranks_.is_first()) {
      folder =
          std::make_unique<RunFolder>(settings_.out, own_settings(),
                                      settings_.restart && !Ranks::started_again(), task_.files());
    }
    ranks_.meet();
    if (!folder) folder = std::make_unique<RunFolder>(settings_.out, own_settings());
    return folder;
  }
  bool shows() const { return settings_.show_progress && ranks_.is_first(); }
  void resume() {
    if (!folder_) return;
    const auto warn = [&](const std::string& line) { progress_->note(task_.name() + ": " + line); };
    const auto state = folder_->resume(parameters_.tensors(), settings_.steps, warn);
    if (state) state_ = *state;
    parameters_.publish();
    resumed_from_ = state_.step;
    seconds_before_ = state_.seconds;
  }
  void say_plan() {
    if (state_.step > 0) progress_->note("going on from step " + std::to_string(state_.step));
    if (state_.step == settings_.steps || !shows()) return;
    for (const std::string& line :
         plan_lines(task_.name(), task_.plan(), settings_.steps, task_.tokens(state_.step))) {
      progress_->note(line);
    }
    if (!is_on_cpu()) {  // it works behind the host: only a whole step can be timed
      progress_->note(task_.name() + ": the time is estimated after the first step");
    }
  }
  bool is_on_cpu() const { return parameters_.device().is_cpu(); }
  bool is_multiple(int64_t every) const { return every > 0 && state_.step % every == 0; }
  double seconds() const {
    return seconds_before_ + std::chrono::duration<double>(Clock::now() - begin_).count();
  }

  // The gradient of all micro-batches, of all processes; returns the metrics. Process r computes
  // micro-batches r, r + size, ...
  at::Tensor backward() {
    const int64_t count = micro_batches(state_.step), size = ranks_.size();
    std::vector<int64_t> own;
    for (int64_t i = ranks_.rank(); i < count; i += size) own.push_back(i);
    at::Tensor metrics;
    const auto at_once = static_cast<size_t>(task_.at_once());
    for (size_t begin = 0; begin < own.size(); begin += at_once) {
      const auto some = std::span(own).subspan(begin, std::min(at_once, own.size() - begin));
      const bool is_last = begin + some.size() == own.size();
      const std::string what = some.size() == 1
                                   ? message("micro-batch ", some[0] + 1, "/", count)
                                   : message(some.size(), " of ", count, " micro-batches");
      const auto watch = [&](int64_t layer, int64_t layers) {
        const double part = static_cast<double>(layer) / static_cast<double>(layers);
        const double done = static_cast<double>(begin) + part * static_cast<double>(some.size());
        show_part(done / static_cast<double>(own.size()),
                  layer == layers ? what : message(what, ", layer ", layer, "/", layers));
      };
      task_.watch(watch);
      const at::Tensor share =
          task_.backward(state_.step, some, [&](std::span<const at::Tensor> leaves) {
            parameters_.collect();
            if (is_last) parameters_.sum(leaves);
          });
      parameters_.collect();
      metrics = metrics.defined() ? metrics.add_(share) : share.to(at::kDouble);
      watch(1, 1);
    }
    parameters_.sum_rest();
    if (size > 1) metrics = at::cat({metrics, signal_number().to(metrics.device())});
    ranks_.start_sum(metrics);
    ranks_.finish();
    if (size == 1) return metrics;
    signals_ = metrics.narrow(0, metrics.size(0) - 1, 1);
    return metrics.narrow(0, 0, metrics.size(0) - 1);
  }

  // The signal that came to this process, as it is summed over all.
  at::Tensor signal_number() const {
    const int signal = guard_.signal();
    const double number = signal == SIGTERM ? kTerminate : signal != 0 ? 1 : 0;
    return at::tensor({number}, at::kDouble);
  }
  // The signal after which to stop, the same in all processes; 0: go on. Waits for the step where
  // there are several.
  int stop_signal() const {
    if (ranks_.size() == 1) return guard_.signal();
    if (!signals_.defined()) return 0;  // no step yet
    const double sum = signals_.item<double>();
    return sum >= kTerminate ? SIGTERM : sum > 0 ? SIGINT : 0;
  }
  [[noreturn]] void stop(int signal) {
    progress_.reset();
    const std::string what = task_.name() + ": stopped, step " + std::to_string(state_.step) +
                             " of " + std::to_string(settings_.steps) + " is saved in " +
                             settings_.out.string() + "; " + settings_.go_on +
                             " goes on from there";
    throw Interrupted(signal, shows() ? what : "");
  }

  // `share` of this process's part of a step is done. A GPU is behind the host, so that nothing is
  // estimated from its parts.
  void show_part(double share, const std::string& what) {
    const bool is_measured = is_on_cpu();
    progress_->part(is_measured ? share : 0, what);
    const std::chrono::duration<double> spent = Clock::now() - begin_;
    if (is_measured && state_.step == resumed_from_ && spent.count() > kProbeSeconds) {
      say_time(spent.count() / share);
    }
  }
  // Once.
  void say_time(double seconds_per_step) {
    if (time_is_said_) return;
    time_is_said_ = true;
    progress_->note(time_line(task_.name(), seconds_per_step, settings_.steps - resumed_from_));
  }

  // Everything on the device: nothing here waits for a result, unless states are on the host.
  void one_step() {
    if (settings_.on_step) settings_.on_step(state_.step);
    {
      RECORD_USER_SCOPE("seer::optimizer");
      parameters_.zero_gradients();
    }
    const at::Tensor metrics = backward();
    RECORD_USER_SCOPE("seer::optimizer");
    const at::Tensor norm = parameters_.norm();
    const at::Tensor finite = at::isfinite(metrics[0]).logical_and_(at::isfinite(norm));
    const at::Tensor skip = finite.logical_not().to(at::kFloat);
    const at::Tensor shrink =
        settings_.clip > 0 ? (settings_.clip / (norm + 1e-6)).clamp_max_(1) : at::Tensor();
    std::vector<double> rates;
    for (const ParameterGroup& group : groups_) rates.push_back(learning_rate(group, state_.step));
    parameters_.step(rates, skip, shrink);
    rows_[waiting_++].copy_(
        at::cat({metrics, norm.to(at::kDouble).view(1), skip.to(at::kDouble).view(1)}));
    ++state_.step;
  }

  double learning_rate(const ParameterGroup& group, int64_t step) const {
    return group.learning_rate * factor(group.schedule, step, settings_.steps);
  }

  // Waits for the steps so far; writes a line for each, counts those left out.
  void read_metrics() {
    const at::Tensor rows = rows_.narrow(0, 0, waiting_).to(at::kCPU);
    const std::chrono::duration<double> spent = Clock::now() - read_at_;
    read_at_ = Clock::now();
    if (waiting_ == 0) return;
    if (state_.step < settings_.steps) say_time(spent.count() / static_cast<double>(waiting_));
    const int64_t first = state_.step - waiting_;
    double tokens = 0;
    for (int64_t i = 0; i < waiting_; ++i) tokens += static_cast<double>(task_.tokens(first + i));
    const double rate = tokens / std::max(spent.count(), 1e-9);
    for (int64_t i = 0; i < waiting_; ++i)
      write_line(first + i, rows[i].const_data_ptr<double>(), rate);
    waiting_ = 0;
    char status[96];
    std::snprintf(status, sizeof(status), "loss %.4g, lr %.2e, %s tokens/s", state_.loss,
                  learning_rate(groups_[0], state_.step - 1), count_text(rate).c_str());
    progress_->update(state_.step, status);
  }

  void check_skipped() const {
    SEER_CHECK(!broken_at_, "the loss or the gradient was not finite in ", kMostSkipped,
               " steps in a row, the last is step ", broken_at_, " of ", settings_.out.string(),
               ": lower the learning rate, or look for broken data");
  }

  // What has just been loaded: folders on a network may show processes different files.
  void check_same_step() {
    const auto step = static_cast<double>(state_.step), count = static_cast<double>(ranks_.size());
    const at::Tensor sums = at::tensor({step, step * step}, at::kDouble).to(parameters_.device());
    ranks_.start_sum(sums);
    ranks_.finish();
    const at::Tensor found = sums.to(at::kCPU);
    const double* sum = found.const_data_ptr<double>();
    SEER_CHECK(count * sum[1] == sum[0] * sum[0], "this process would go on from step ",
               state_.step, ", others from another: wait until all see the same files in ",
               (settings_.out / "checkpoints").string(), ", then start all of them again");
  }

  void write_line(int64_t step, const double* row, double rate) {
    nlohmann::ordered_json line{{"step", step + 1}};
    for (size_t j = 0; j < names_.size(); ++j) line[names_[j]] = row[j];
    line["grad_norm"] = row[names_.size()];
    for (const ParameterGroup& group : groups_) {
      line[groups_.size() == 1 ? "lr" : "lr_" + group.name] = learning_rate(group, step);
    }
    state_.tokens += task_.tokens(step);
    state_.loss = row[0];
    line["tokens"] = state_.tokens;
    const bool was_skipped = row[names_.size() + 1] != 0;
    state_.skipped_in_row = was_skipped ? state_.skipped_in_row + 1 : 0;
    if (state_.skipped_in_row == kMostSkipped) broken_at_ = step + 1;
    if (was_skipped) {
      ++state_.skipped_steps;
      line["skipped"] = true;
      progress_->note(message("step ", step + 1, " is left out: loss ", row[0], ", gradient norm ",
                              row[names_.size()], " (", state_.skipped_steps, " left out so far)"));
    }
    line["tokens_per_s"] = std::llround(rate);
    line["seconds"] = seconds();
    if (folder_) folder_->add_metrics(line);
  }

  void validate() {
    task_.watch([this](int64_t layer, int64_t layers) {
      progress_->part(0, message("validating, layer ", layer, "/", layers));
    });
    state_.valid = task_.validate(state_.step, ranks_);
    read_at_ = Clock::now();  // its time is not the steps'
    if (state_.valid.empty()) return;
    nlohmann::ordered_json line{{"step", state_.step}};
    std::string text = "step " + std::to_string(state_.step) + ":";
    for (const auto& [name, value] : state_.valid) {
      line["valid_" + name] = value;
      text += message(" valid ", name, " ", value);
    }
    if (folder_) folder_->add_metrics(line);
    progress_->note(text);
  }

  void save() {
    state_.seconds = seconds();
    if (ranks_.is_first()) {
      folder_->save(parameters_.tensors(), state_, [&](size_t i) { return parameters_.fetch(i); });
    } else {
      parameters_.send();
    }
    read_at_ = Clock::now();
  }

  Task& task_;
  const LoopSettings& settings_;
  std::vector<ParameterGroup> groups_;
  std::vector<std::string> names_;
  Ranks alone_;
  Ranks& ranks_;
  InterruptGuard guard_;
  std::unique_ptr<RunFolder> folder_;
  Parameters parameters_;
  at::Tensor
      rows_;  // [kMostRows, metrics + 2]: metrics, gradient norm, 1 where the step was left out
  RunState state_;  // after the steps so far; metrics of the last ones may wait in rows_
  int64_t waiting_ = 0, resumed_from_ = 0;
  at::Tensor signals_;  // [1] those of all processes, after a step; undefined: this one alone
  bool time_is_said_ = false;
  int64_t broken_at_ = 0;  // the last of too many steps that were left out
  double seconds_before_ = 0;
  Clock::time_point begin_, read_at_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace

void check(const LoopSettings& settings) {
  if (settings.keeps && settings.out.empty()) {
    throw UsageError("no folder is given for the run: name one to write to");
  }
  LoopSettings copy = settings;
  if (copy.or_none && copy.steps == 0) copy.steps = 1;
  each_setting(copy, CheckSetting());
}

json run_settings(const std::string& task, const json& settings, const LoopSettings& loop) {
  return {{"task", task},
          {"settings", settings},
          {"loop", {{"steps", loop.steps}, {"clip", loop.clip}}}};
}

std::string stopped_when_done(const std::string& task, const LoopSettings& settings,
                              const std::string& result) {
  if (!settings.show_progress || !settings.is_first()) return "";
  return task + ": stopped after the last step" +
         (settings.keeps ? "; " + result + " saved in " + settings.out.string() : "");
}

RunResult run(Task& task, const LoopSettings& settings) {
  check(settings);
  return Loop(task, settings).run();
}

}  // namespace seer::train
