#include "seer/io/jinja/statement.h"

#include <algorithm>

#include "seer/io/jinja/loop.h"

namespace seer::io::jinja {

namespace {

template <class Run>
class Lambda : public Statement {
 public:
  Lambda(int line, Run run) : Statement(line), run_(std::move(run)) {}

 protected:
  Flow run(const ScopePtr& scope, std::string& out) const override { return run_(scope, out); }

 private:
  Run run_;
};

template <class Run>
StatementPtr make(int line, Run run) {
  return std::make_unique<Lambda<Run>>(line, std::move(run));
}

void print(const std::string& text, std::string& out) {
  out += text;
  if (out.size() > kLargestText) throw Failure("the prompt grows beyond all bounds");
}

std::vector<Value> loop_values(const ForParts& parts, const ScopePtr& scope) {
  std::vector<Value> values = elements((*parts.values)(scope));
  scope->step(values.size());
  if (!parts.test) return values;
  std::vector<Value> kept;
  for (Value& value : values) {
    const ScopePtr inner = Scope::inside(scope);
    parts.target.assign(inner, value);
    if ((*parts.test)(inner).truth()) kept.push_back(std::move(value));
  }
  return kept;
}

Flow run_for(const ForParts& parts, const ScopePtr& scope, std::string& out) {
  const auto loop = std::make_shared<Loop>(loop_values(parts, scope));
  for (; !loop->is_done(); loop->advance()) {
    const ScopePtr inner = Scope::inside(scope);
    inner->set("loop", Value(std::shared_ptr<Object>(loop)));
    parts.target.assign(inner, loop->current());
    if (run_block(parts.body, inner, out) == Flow::break_loop) return Flow::next;
  }
  if (loop->is_empty()) return run_block(parts.otherwise, Scope::inside(scope), out);
  return Flow::next;
}

struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  Block body;

  Value call(const ScopePtr& scope, const Arguments& arguments) const {
    if (arguments.positional.size() > parameters.size()) {
      arguments.check(name, parameters.size());
    }
    const ScopePtr inner = Scope::inside(scope);
    for (const auto& argument : arguments.named) {
      const auto& key = argument.first;
      const auto& value = argument.second;
      const bool is_known = std::any_of(parameters.begin(), parameters.end(),
                                        [&](const Parameter& p) { return p.name == key; });
      if (!is_known) throw Failure(name + "() has no argument " + key);
    }
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& parameter = parameters[i];
      const Value* given = arguments.find(i, parameter.name);
      inner->set(parameter.name, given               ? *given
                                 : parameter.missing ? (*parameter.missing)(inner)
                                                     : Value::undefined(parameter.name));
    }
    std::string out;
    run_block(body, inner, out);
    return out;
  }
};

}  // namespace

Flow Statement::operator()(const ScopePtr& scope, std::string& out) const {
  try {
    scope->step();
    return run(scope, out);
  } catch (const Failure& failure) {
    throw PlacedFailure("line " + std::to_string(line_) + ": " + failure.what());
  }
}

Flow run_block(const Block& block, const ScopePtr& scope, std::string& out) {
  for (const StatementPtr& statement : block) {
    const Flow flow = (*statement)(scope, out);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

void Target::assign(const ScopePtr& scope, const Value& value) const {
  if (!parts.empty()) {
    const std::vector<Value> values = elements(value);
    if (values.size() != parts.size()) {
      throw Failure(std::to_string(values.size()) + " values for " + std::to_string(parts.size()) +
                    " names");
    }
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(scope, values[i]);
    return;
  }
  if (attribute.empty()) return scope->set(name, value);
  const Value* found = scope->find(name);
  if (!found || !found->object() || !found->object()->set_attribute(attribute, value)) {
    throw Failure("cannot set " + name + "." + attribute + ": " + name + " is no namespace");
  }
}

StatementPtr make_text(int line, std::string text) {
  return make(line, [text = std::move(text)](const ScopePtr&, std::string& out) {
    print(text, out);
    return Flow::next;
  });
}

StatementPtr make_output(int line, ExpressionPtr value) {
  return make(line, [value = std::move(value)](const ScopePtr& scope, std::string& out) {
    print((*value)(scope).text(), out);
    return Flow::next;
  });
}

StatementPtr make_set(int line, Target target, ExpressionPtr value) {
  return make(line, [target = std::move(target), value = std::move(value)](const ScopePtr& scope,
                                                                           std::string&) {
    target.assign(scope, (*value)(scope));
    return Flow::next;
  });
}

StatementPtr make_set_block(int line, Target target, ExpressionPtr value, std::string input,
                            Block block) {
  return make(line, [target = std::move(target), value = std::move(value), input = std::move(input),
                     block = std::move(block)](const ScopePtr& scope, std::string& out) {
    const ScopePtr inner = Scope::inside(scope);
    std::string text;
    run_block(block, inner, text);
    inner->set(input, std::move(text));
    const Value result = (*value)(inner);
    if (target.name.empty() && target.parts.empty()) {
      print(result.text(), out);  // a filter block prints
    } else {
      target.assign(scope, result);
    }
    return Flow::next;
  });
}

StatementPtr make_if(int line, std::vector<Branch> branches) {
  return make(line, [branches = std::move(branches)](const ScopePtr& scope, std::string& out) {
    for (const Branch& branch : branches) {
      if (!branch.test || (*branch.test)(scope).truth()) return run_block(branch.block, scope, out);
    }
    return Flow::next;
  });
}

StatementPtr make_for(int line, ForParts parts) {
  return make(line, [parts = std::move(parts)](const ScopePtr& scope, std::string& out) {
    return run_for(parts, scope, out);
  });
}

StatementPtr make_macro(int line, std::string name, std::vector<Parameter> parameters, Block body) {
  auto macro =
      std::make_shared<Macro>(Macro{std::move(name), std::move(parameters), std::move(body)});
  return make(line, [macro](const ScopePtr& scope, std::string&) {
    // Weak, or a scope and the macro in it would keep one another alive.
    const std::weak_ptr<Scope> home = scope;
    scope->set(macro->name, Value::function(macro->name, [macro, home](const Arguments& arguments) {
                 const ScopePtr outer = home.lock();
                 if (!outer) throw Failure(macro->name + "() is called outside of its block");
                 return macro->call(outer, arguments);
               }));
    return Flow::next;
  });
}

StatementPtr make_with(int line, std::vector<std::pair<Target, ExpressionPtr>> values, Block body) {
  return make(line, [values = std::move(values), body = std::move(body)](const ScopePtr& scope,
                                                                         std::string& out) {
    const ScopePtr inner = Scope::inside(scope);
    for (const auto& [target, value] : values) target.assign(inner, (*value)(scope));
    return run_block(body, inner, out);
  });
}

StatementPtr make_block(int line, Block body) {
  return make(line, [body = std::move(body)](const ScopePtr& scope, std::string& out) {
    return run_block(body, Scope::inside(scope), out);
  });
}

StatementPtr make_jump(int line, Flow flow) {
  return make(line, [flow](const ScopePtr&, std::string&) { return flow; });
}

}  // namespace seer::io::jinja
