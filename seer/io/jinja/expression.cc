#include "seer/io/jinja/expression.h"

#include "seer/io/jinja/filters.h"
#include "seer/io/jinja/operators.h"
#include "seer/io/jinja/tests.h"

namespace seer::io::jinja {

namespace {

class Constant : public Expression {
 public:
  explicit Constant(Value value) : value_(std::move(value)) {}

 protected:
  Value evaluate(const ScopePtr&) const override { return value_; }

 private:
  Value value_;
};

class Name : public Expression {
 public:
  explicit Name(std::string name) : name_(std::move(name)) {}

 protected:
  Value evaluate(const ScopePtr& scope) const override {
    const Value* value = scope->find(name_);
    return value ? *value : Value::undefined(name_);
  }

 private:
  std::string name_;
};

// An expression given by what it does with its parts.
template <class Evaluate>
class Lambda : public Expression {
 public:
  explicit Lambda(Evaluate evaluate) : evaluate_(std::move(evaluate)) {}

 protected:
  Value evaluate(const ScopePtr& scope) const override { return evaluate_(scope); }

 private:
  Evaluate evaluate_;
};

template <class Evaluate>
ExpressionPtr make(Evaluate evaluate) {
  return std::make_unique<Lambda<Evaluate>>(std::move(evaluate));
}

Value value_or_none(const ExpressionPtr& expression, const ScopePtr& scope) {
  return expression ? (*expression)(scope) : Value::none();
}

// A value that was made, its size counted.
Value counted(const ScopePtr& scope, Value value) {
  constexpr size_t kBytesPerStep = 256;
  if (value.is(Value::Kind::list)) scope->step(value.list().items.size());
  if (value.is_string()) scope->step(value.string().size() / kBytesPerStep);
  return value;
}

}  // namespace

Arguments CallArguments::evaluate(const ScopePtr& scope) const {
  Arguments out;
  for (const auto& value : positional) out.positional.push_back((*value)(scope));
  for (const auto& [key, value] : named) out.named.emplace_back(key, (*value)(scope));
  return out;
}

ExpressionPtr make_constant(Value value) {
  return std::make_unique<Constant>(std::move(value));
}

ExpressionPtr make_name(std::string name) {
  return std::make_unique<Name>(std::move(name));
}

ExpressionPtr make_list(std::vector<ExpressionPtr> items, bool is_tuple) {
  return make([items = std::move(items), is_tuple](const ScopePtr& scope) {
    std::vector<Value> values;
    for (const auto& item : items) values.push_back((*item)(scope));
    return Value::list(std::move(values), is_tuple);
  });
}

ExpressionPtr make_dict(std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items) {
  return make([items = std::move(items)](const ScopePtr& scope) {
    Dict dict;
    for (const auto& [key_part, value_part] : items) {
      const Value key = (*key_part)(scope);
      Value value = (*value_part)(scope);
      if (const Value* found = dict.find(key)) {
        const_cast<Value&>(*found) = std::move(value);
      } else {
        dict.items.emplace_back(key, std::move(value));
      }
    }
    return Value::dict(std::move(dict.items));
  });
}

ExpressionPtr make_attribute(ExpressionPtr object, std::string name) {
  return make([object = std::move(object), name = std::move(name)](const ScopePtr& scope) {
    return attribute_of((*object)(scope), name);
  });
}

ExpressionPtr make_item(ExpressionPtr object, ExpressionPtr key) {
  return make([object = std::move(object), key = std::move(key)](const ScopePtr& scope) {
    const Value value = (*object)(scope);
    return item_of(value, (*key)(scope));
  });
}

ExpressionPtr make_slice(ExpressionPtr object, ExpressionPtr begin, ExpressionPtr end,
                         ExpressionPtr step) {
  return make([object = std::move(object), begin = std::move(begin), end = std::move(end),
               step = std::move(step)](const ScopePtr& scope) {
    return counted(scope, slice_of((*object)(scope), value_or_none(begin, scope),
                                   value_or_none(end, scope), value_or_none(step, scope)));
  });
}

ExpressionPtr make_call(ExpressionPtr function, CallArguments arguments) {
  return make(
      [function = std::move(function), arguments = std::move(arguments)](const ScopePtr& scope) {
        const Value callee = (*function)(scope);
        const Arguments values = arguments.evaluate(scope);
        const CallDepth depth(scope->limits());
        return counted(scope, callee.function().call(values));
      });
}

ExpressionPtr make_filter(ExpressionPtr value, std::string name, CallArguments arguments) {
  return make([value = std::move(value), name = std::move(name),
               arguments = std::move(arguments)](const ScopePtr& scope) {
    const Value input = (*value)(scope);
    return counted(scope, apply_filter(name, input, arguments.evaluate(scope)));
  });
}

ExpressionPtr make_test(ExpressionPtr value, std::string name, CallArguments arguments) {
  return make([value = std::move(value), name = std::move(name),
               arguments = std::move(arguments)](const ScopePtr& scope) {
    const Value input = (*value)(scope);
    return Value(apply_test(name, input, arguments.evaluate(scope)));
  });
}

ExpressionPtr make_not(ExpressionPtr value) {
  return make([value = std::move(value)](const ScopePtr& scope) {
    return Value(!(*value)(scope).truth());
  });
}

ExpressionPtr make_sign(ExpressionPtr value, bool negative) {
  return make([value = std::move(value), negative](const ScopePtr& scope) {
    const Value operand = (*value)(scope);
    return negative ? negate(operand) : negate(negate(operand));
  });
}

ExpressionPtr make_binary(std::string sign, ExpressionPtr left, ExpressionPtr right) {
  if (sign == "and" || sign == "or") {
    return make([is_and = sign == "and", left = std::move(left),
                 right = std::move(right)](const ScopePtr& scope) {
      Value first = (*left)(scope);
      return first.truth() == is_and ? (*right)(scope) : first;
    });
  }
  return make([sign = std::move(sign), left = std::move(left),
               right = std::move(right)](const ScopePtr& scope) {
    const Value first = (*left)(scope);
    return counted(scope, apply_operator(sign, first, (*right)(scope)));
  });
}

ExpressionPtr make_comparison(ExpressionPtr left,
                              std::vector<std::pair<std::string, ExpressionPtr>> rest) {
  return make([left = std::move(left), rest = std::move(rest)](const ScopePtr& scope) {
    Value first = (*left)(scope);
    for (const auto& [sign, part] : rest) {
      Value second = (*part)(scope);
      if (!compare(sign, first, second)) return Value(false);
      first = std::move(second);
    }
    return Value(true);
  });
}

ExpressionPtr make_condition(ExpressionPtr test, ExpressionPtr value, ExpressionPtr otherwise) {
  return make([test = std::move(test), value = std::move(value),
               otherwise = std::move(otherwise)](const ScopePtr& scope) {
    if ((*test)(scope).truth()) return (*value)(scope);
    return otherwise ? (*otherwise)(scope) : Value::undefined("the value of an if without else");
  });
}

}  // namespace seer::io::jinja
