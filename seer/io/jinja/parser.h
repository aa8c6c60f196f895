#pragma once
// Parser of templates: from tokens to statements and expressions.

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "seer/io/jinja/expression.h"
#include "seer/io/jinja/lexer.h"
#include "seer/io/jinja/statement.h"

namespace seer::io::jinja {

// Error names `name`, the line and what is wrong or not supported.
Block parse(std::string_view source, const std::string& name);

// Tokens one after the other.
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& name)
      : tokens_(std::move(tokens)), name_(name) {}

  const Token& current() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool at(Token::Kind kind) const { return current().kind == kind; }
  bool at_name(std::string_view name) const {
    return at(Token::Kind::name) && current().text == name;
  }
  bool at_sign(std::string_view sign) const {
    return at(Token::Kind::sign) && current().text == sign;
  }
  bool skip_name(std::string_view name);
  bool skip_sign(std::string_view sign);
  std::string expect_name();
  void expect_sign(std::string_view sign);
  void expect(Token::Kind kind, std::string_view what);
  [[noreturn]] void wrong(const std::string& what) const;

 private:
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  const std::string& name_;
};

// The grammar of expressions, by precedence (Jinja 3.1).
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // With `if ... else` or without; expressions with commas between them are a tuple.
  ExpressionPtr expression(bool with_condition = true);
  ExpressionPtr tuple(bool with_condition = true, bool may_be_empty = false);
  // | name(...) | name ... applied to `value`.
  ExpressionPtr filters(ExpressionPtr value);
  ExpressionPtr filter(ExpressionPtr value);  // the name is next

 private:
  class Nesting;
  bool at_tuple_end() const;
  ExpressionPtr condition();
  ExpressionPtr disjunction();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr subscript(ExpressionPtr value);
  ExpressionPtr test(ExpressionPtr value);
  CallArguments arguments();

  TokenStream& tokens_;
  int depth_ = 0;
};

}  // namespace seer::io::jinja
