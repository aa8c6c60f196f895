#include "seer/io/jinja/loop.h"

namespace seer::io::jinja {

std::optional<Value> Loop::attribute(std::string_view name) const {
  const auto index = static_cast<int64_t>(index_), length = static_cast<int64_t>(values_.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "length") return length;
  if (name == "previtem") {
    return index > 0 ? values_[index_ - 1] : Value::undefined("loop.previtem");
  }
  if (name == "nextitem") {
    return index + 1 < length ? values_[index_ + 1] : Value::undefined("loop.nextitem");
  }
  if (name == "cycle") {
    return Value::function("cycle", [at = index_](const Arguments& arguments) {
      if (arguments.positional.empty()) throw Failure("loop.cycle() without values");
      return arguments.positional[at % arguments.positional.size()];
    });
  }
  if (name == "changed") {
    return Value::function("changed", [seen = seen_](const Arguments& arguments) {
      Value now = Value::list(arguments.positional, true);
      const bool is_same = *seen && **seen == now;
      *seen = std::move(now);
      return Value(!is_same);
    });
  }
  return std::nullopt;
}

}  // namespace seer::io::jinja
