#include "seer/bench/op_times.h"

#include <memory>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

// torch's callbacks are plain functions.
OpTimes* active = nullptr;
thread_local bool is_inside = false;  // of a call that counts

struct Call : at::ObserverContext {
  explicit Call(torch_ops::Stopwatch& watch) : span(watch) { is_inside = true; }
  ~Call() override { is_inside = false; }
  torch_ops::Stopwatch::Span span;
};

}  // namespace

OpTimes::OpTimes(const std::vector<OpPart>& parts, const c10::Device& device) {
  SEER_CHECK(!active, "the times of ops are being taken already");
  for (const OpPart& part : parts) {
    auto& watch = watches_.try_emplace(part.name, device).first->second;
    for (const std::string& op : part.ops) watch_of_[op] = &watch;
  }
  active = this;
  handle_ = at::addGlobalCallback(at::RecordFunctionCallback(begin).scopes(
      {at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE}));
}

OpTimes::~OpTimes() {
  at::removeCallback(handle_);
  active = nullptr;
}

std::unordered_map<std::string, double> OpTimes::seconds() {
  std::unordered_map<std::string, double> all;
  for (auto& [name, watch] : watches_) all[name] = watch.seconds();
  return all;
}

std::unique_ptr<at::ObserverContext> OpTimes::begin(const at::RecordFunction& call) {
  if (!active || is_inside) return nullptr;
  const auto found = active->watch_of_.find(call.name());
  return found == active->watch_of_.end() ? nullptr : std::make_unique<Call>(*found->second);
}

}  // namespace seer::bench
