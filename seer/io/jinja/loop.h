#pragma once
// The variable `loop` of a for.

#include <string_view>
#include <vector>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  explicit Loop(std::vector<Value> values) : values_(std::move(values)) {}

  bool is_empty() const { return values_.empty(); }
  bool is_done() const { return index_ == values_.size(); }
  const Value& current() const { return values_[index_]; }
  void advance() { ++index_; }

  std::string_view type_name() const override { return "loop"; }
  // index, index0, revindex, revindex0, first, last, length, previtem, nextitem, cycle(), changed().
  std::optional<Value> attribute(std::string_view name) const override;

 private:
  std::vector<Value> values_;
  size_t index_ = 0;
  std::shared_ptr<std::optional<Value>> seen_ = std::make_shared<std::optional<Value>>();
};

}  // namespace seer::io::jinja
