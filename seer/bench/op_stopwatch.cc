#include "seer/bench/op_stopwatch.h"

#include <memory>
#include <utility>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

// torch's callbacks are plain functions.
thread_local OpStopwatch* active = nullptr;

struct Call : at::ObserverContext {
  explicit Call(torch_ops::Stopwatch& watch) : span(watch) {}
  torch_ops::Stopwatch::Span span;
};

}  // namespace

OpStopwatch::OpStopwatch(std::string op, const c10::Device& device)
    : op_(std::move(op)), watch_(device) {
  SEER_CHECK(!active, "an OpStopwatch is running on this thread");
  active = this;
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(begin).scopes({at::RecordScope::FUNCTION}));
}

OpStopwatch::~OpStopwatch() {
  at::removeCallback(handle_);
  active = nullptr;
}

std::unique_ptr<at::ObserverContext> OpStopwatch::begin(const at::RecordFunction& call) {
  if (!active || active->op_ != call.name()) return nullptr;
  return std::make_unique<Call>(active->watch_);
}

}  // namespace seer::bench
