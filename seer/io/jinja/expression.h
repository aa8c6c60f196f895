#pragma once
// Expressions of a template: a tree that gives a value in a scope.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/io/jinja/scope.h"
#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

class Expression {
 public:
  virtual ~Expression() = default;
  Value operator()(const ScopePtr& scope) const {
    scope->step();
    return evaluate(scope);
  }

 protected:
  virtual Value evaluate(const ScopePtr& scope) const = 0;
};
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  Arguments evaluate(const ScopePtr& scope) const;
};

ExpressionPtr make_constant(Value value);
ExpressionPtr make_name(std::string name);
ExpressionPtr make_list(std::vector<ExpressionPtr> items, bool is_tuple);
ExpressionPtr make_dict(std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items);
ExpressionPtr make_attribute(ExpressionPtr object, std::string name);  // object.name
ExpressionPtr make_item(ExpressionPtr object, ExpressionPtr key);      // object[key]
// object[begin:end:step]; each part may be null.
ExpressionPtr make_slice(ExpressionPtr object, ExpressionPtr begin, ExpressionPtr end,
                         ExpressionPtr step);
ExpressionPtr make_call(ExpressionPtr function, CallArguments arguments);
ExpressionPtr make_filter(ExpressionPtr value, std::string name, CallArguments arguments);
ExpressionPtr make_test(ExpressionPtr value, std::string name, CallArguments arguments);
ExpressionPtr make_not(ExpressionPtr value);
ExpressionPtr make_sign(ExpressionPtr value, bool negative);
// `sign`: + - * / // % ** ~ and or
ExpressionPtr make_binary(std::string sign, ExpressionPtr left, ExpressionPtr right);
// left sign right sign right ... with == != < <= > >= in notin; all must hold.
ExpressionPtr make_comparison(ExpressionPtr left,
                              std::vector<std::pair<std::string, ExpressionPtr>> rest);
// `otherwise` may be null: undefined.
ExpressionPtr make_condition(ExpressionPtr test, ExpressionPtr value, ExpressionPtr otherwise);

}  // namespace seer::io::jinja
