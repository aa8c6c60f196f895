#pragma once
// Variables while a template runs, and the limits that keep a hostile one from running for ever.

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// Of one rendering.
struct Limits {
  size_t steps = 20'000'000;  // expressions, statements and list elements that may be worked on
  int depth = 200;            // calls within calls
};

// A block's variables; reads look outwards, writes stay inside.
class Scope : public std::enable_shared_from_this<Scope> {
 public:
  Scope(std::shared_ptr<Scope> outer, Limits* limits) : outer_(std::move(outer)), limits_(limits) {}
  static std::shared_ptr<Scope> inside(const std::shared_ptr<Scope>& outer) {
    return std::make_shared<Scope>(outer, outer->limits_);
  }

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->outer_.get()) {
      const auto it = scope->variables_.find(name);
      if (it != scope->variables_.end()) return &it->second;
    }
    return nullptr;
  }
  void set(const std::string& name, Value value) { variables_[name] = std::move(value); }
  Limits& limits() const { return *limits_; }

  // Counts what was done: one for an expression, more for one that makes a long value.
  void step(size_t count = 1) const {
    if (limits_->steps < count) throw Failure("the template runs for too long");
    limits_->steps -= count;
  }

 private:
  std::map<std::string, Value, std::less<>> variables_;
  std::shared_ptr<Scope> outer_;
  Limits* limits_;
};
using ScopePtr = std::shared_ptr<Scope>;

// One level of calls, for as long as it lives.
class CallDepth {
 public:
  explicit CallDepth(Limits& limits) : limits_(limits) {
    if (limits_.depth == 0) throw Failure("calls are nested too deep");
    --limits_.depth;
  }
  ~CallDepth() { ++limits_.depth; }
  CallDepth(const CallDepth&) = delete;
  CallDepth& operator=(const CallDepth&) = delete;

 private:
  Limits& limits_;
};

}  // namespace seer::io::jinja
