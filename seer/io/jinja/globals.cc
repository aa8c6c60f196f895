#include "seer/io/jinja/globals.h"

#include <ctime>

#include "seer/io/jinja/operators.h"

namespace seer::io::jinja {

namespace {

constexpr int64_t kLongestRange = 100'000;  // as in Jinja's sandbox

class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "namespace"; }
  std::optional<Value> attribute(std::string_view name) const override {
    const auto it = attributes_.find(name);
    return it == attributes_.end() ? std::nullopt : std::optional<Value>(it->second);
  }
  bool set_attribute(std::string_view name, const Value& value) override {
    attributes_[std::string(name)] = value;
    return true;
  }

 private:
  std::map<std::string, Value, std::less<>> attributes_;
};

Value make_namespace(const Arguments& arguments) {
  if (arguments.positional.size() > 1) arguments.check("namespace", 1);
  auto made = std::make_shared<Namespace>();
  for (const Value& from : arguments.positional) {
    for (const auto& [key, value] : from.dict().items) made->set_attribute(key.string(), value);
  }
  for (const auto& [key, value] : arguments.named) made->set_attribute(key, value);
  return Value(std::shared_ptr<Object>(std::move(made)));
}

Value make_dict_of(const Arguments& arguments) {
  if (!arguments.positional.empty()) throw Failure("dict() of a value is not supported");
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [key, value] : arguments.named) items.emplace_back(key, value);
  return Value::dict(std::move(items));
}

Value range(const Arguments& arguments) {
  arguments.check("range", 3);
  const bool has_begin = arguments.positional.size() > 1;
  const int64_t begin = has_begin ? arguments.positional[0].integer() : 0;
  const int64_t end = arguments.required("range", has_begin ? 1 : 0).integer();
  const int64_t step = arguments.positional.size() > 2 ? arguments.positional[2].integer() : 1;
  if (step == 0) throw Failure("range() with the step 0");
  std::vector<Value> out;
  int64_t at = begin;
  while (step > 0 ? at < end : at > end) {
    if (static_cast<int64_t>(out.size()) == kLongestRange) {
      throw Failure("range() of more than " + std::to_string(kLongestRange) + " numbers");
    }
    out.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return Value::list(std::move(out));
}

Value raise_exception(const Arguments& arguments) {
  arguments.check("raise_exception", 1, {"message"});
  throw Failure("the template refuses the conversation: " +
                arguments.required("raise_exception", 0, "message").text());
}

// Today's date where the program runs; of all that a template prints, the one thing that changes.
Value strftime_now(const Arguments& arguments) {
  arguments.check("strftime_now", 1, {"format"});
  const std::string& format = arguments.required("strftime_now", 0, "format").string();
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[1024];
  const size_t size = std::strftime(text, sizeof text, format.c_str(), &local);
  if (size == 0 && !format.empty())
    throw Failure("strftime_now() with a format that gives no text");
  return std::string(text, size);
}

}  // namespace

const std::map<std::string, Value>& globals() {
  static const auto* made = new std::map<std::string, Value>{
      {"range", Value::function("range", &range)},
      {"dict", Value::function("dict", &make_dict_of)},
      {"namespace", Value::function("namespace", &make_namespace)},
      {"raise_exception", Value::function("raise_exception", &raise_exception)},
      {"strftime_now", Value::function("strftime_now", &strftime_now)}};
  return *made;
}

}  // namespace seer::io::jinja
