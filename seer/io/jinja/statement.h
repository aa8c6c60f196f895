#pragma once
// Statements of a template: what prints, sets, repeats.

#include <memory>
#include <string>
#include <vector>

#include "seer/io/jinja/expression.h"
#include "seer/io/jinja/scope.h"

namespace seer::io::jinja {

// How a statement ended.
enum class Flow { next, break_loop, continue_loop };

// A text that names its template and line, instead of a Failure that does not.
struct PlacedFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Statement {
 public:
  explicit Statement(int line) : line_(line) {}
  virtual ~Statement() = default;
  // Prints at the end of `out`. PlacedFailure: "line N: what is wrong".
  Flow operator()(const ScopePtr& scope, std::string& out) const;

 protected:
  virtual Flow run(const ScopePtr& scope, std::string& out) const = 0;

 private:
  int line_;
};
using StatementPtr = std::unique_ptr<const Statement>;
using Block = std::vector<StatementPtr>;

Flow run_block(const Block& block, const ScopePtr& scope, std::string& out);

// What is assigned to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;      // not empty: name.attribute
  std::vector<Target> parts;  // not empty: a tuple
  void assign(const ScopePtr& scope, const Value& value) const;
};

struct Parameter {
  std::string name;
  ExpressionPtr missing;  // may be null
};

StatementPtr make_text(int line, std::string text);
StatementPtr make_output(int line, ExpressionPtr value);
StatementPtr make_set(int line, Target target, ExpressionPtr value);
// What the block prints, through the filters of `value`, which reads it as the variable `input`.
StatementPtr make_set_block(int line, Target target, ExpressionPtr value, std::string input,
                            Block block);
struct Branch {
  ExpressionPtr test;  // null: else
  Block block;
};
StatementPtr make_if(int line, std::vector<Branch> branches);
struct ForParts {
  Target target;
  ExpressionPtr values;
  ExpressionPtr test;  // may be null
  Block body, otherwise;
};
StatementPtr make_for(int line, ForParts parts);
StatementPtr make_macro(int line, std::string name, std::vector<Parameter> parameters, Block body);
StatementPtr make_with(int line, std::vector<std::pair<Target, ExpressionPtr>> values, Block body);
// A block with variables of its own: generation.
StatementPtr make_block(int line, Block body);
StatementPtr make_jump(int line, Flow flow);

}  // namespace seer::io::jinja
