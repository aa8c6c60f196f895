// Expressions, from the loosest operator to the tightest.
#include <charconv>

#include "seer/io/jinja/parser.h"

namespace seer::io::jinja {

namespace {

constexpr int kDeepestExpression = 200;  // nested expressions

}  // namespace

// One level of nesting, for as long as it lives.
class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.depth_ > kDeepestExpression)
      parser_.tokens_.wrong("expressions are nested too deep");
  }
  ~Nesting() { --parser_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  ExpressionParser& parser_;
};

ExpressionPtr ExpressionParser::expression(bool with_condition) {
  const Nesting nesting(*this);
  return with_condition ? condition() : disjunction();
}

bool ExpressionParser::at_tuple_end() const {
  return tokens_.at(Token::Kind::variable_end) || tokens_.at(Token::Kind::block_end) ||
         tokens_.at_sign(")") || tokens_.at_name("recursive");
}

ExpressionPtr ExpressionParser::tuple(bool with_condition, bool may_be_empty) {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end()) {
    items.push_back(expression(with_condition));
    if (!tokens_.skip_sign(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (items.empty() && !may_be_empty) tokens_.wrong("an expression is missing");
  return make_list(std::move(items), true);
}

ExpressionPtr ExpressionParser::condition() {
  ExpressionPtr value = disjunction();
  while (tokens_.skip_name("if")) {
    ExpressionPtr test = disjunction();
    ExpressionPtr otherwise;
    if (tokens_.skip_name("else")) {
      const Nesting nesting(*this);
      otherwise = condition();
    }
    value = make_condition(std::move(test), std::move(value), std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::disjunction() {
  ExpressionPtr left = conjunction();
  while (tokens_.skip_name("or")) left = make_binary("or", std::move(left), conjunction());
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr left = negation();
  while (tokens_.skip_name("and")) left = make_binary("and", std::move(left), negation());
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const Nesting nesting(*this);
  if (tokens_.skip_name("not")) return make_not(negation());
  return comparison();
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr left = sum();
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
  for (;;) {
    std::string sign;
    for (const char* known : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (tokens_.skip_sign(known)) {
        sign = known;
        break;
      }
    }
    if (sign.empty() && tokens_.skip_name("in")) sign = "in";
    const Token& next = tokens_.ahead();
    if (sign.empty() && tokens_.at_name("not") && next.kind == Token::Kind::name &&
        next.text == "in") {
      tokens_.take();
      tokens_.take();
      sign = "notin";
    }
    if (sign.empty()) break;
    rest.emplace_back(sign, sum());
  }
  return rest.empty() ? std::move(left) : make_comparison(std::move(left), std::move(rest));
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (tokens_.at_sign("+") || tokens_.at_sign("-")) {
    const std::string sign = tokens_.take().text;
    left = make_binary(sign, std::move(left), concatenation());
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr left = product();
  while (tokens_.skip_sign("~")) left = make_binary("~", std::move(left), product());
  return left;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (tokens_.at_sign("*") || tokens_.at_sign("/") || tokens_.at_sign("//") ||
         tokens_.at_sign("%")) {
    const std::string sign = tokens_.take().text;
    left = make_binary(sign, std::move(left), power());
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary();
  while (tokens_.skip_sign("**")) left = make_binary("**", std::move(left), unary());
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Nesting nesting(*this);
  ExpressionPtr value;
  if (tokens_.at_sign("-") || tokens_.at_sign("+")) {
    const bool negative = tokens_.take().text == "-";
    value = make_sign(unary(false), negative);
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  while (with_filters) {
    if (tokens_.at_sign("|")) {
      value = filters(std::move(value));
    } else if (tokens_.skip_name("is")) {
      value = test(std::move(value));
    } else if (tokens_.at_sign("(")) {
      value = make_call(std::move(value), arguments());
    } else {
      break;
    }
  }
  return value;
}

ExpressionPtr ExpressionParser::primary() {
  const Token token = tokens_.take();
  switch (token.kind) {
    case Token::Kind::name:
      if (token.text == "true" || token.text == "True") return make_constant(true);
      if (token.text == "false" || token.text == "False") return make_constant(false);
      if (token.text == "none" || token.text == "None") return make_constant(Value::none());
      return make_name(token.text);
    case Token::Kind::string: {
      std::string text = token.text;
      while (tokens_.at(Token::Kind::string)) text += tokens_.take().text;
      return make_constant(std::move(text));
    }
    case Token::Kind::integer: {
      int64_t value = 0;
      const auto end = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
        tokens_.wrong("the number " + token.text + " has more than 64 bits");
      }
      return make_constant(value);
    }
    case Token::Kind::number: {
      double value = 0;
      const auto end = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
        tokens_.wrong("the number " + token.text + " is too large");
      }
      return make_constant(value);
    }
    default: break;
  }
  if (token.text == "(" && token.kind == Token::Kind::sign) {
    ExpressionPtr inside = tuple(true, true);
    tokens_.expect_sign(")");
    return inside;
  }
  if (token.text == "[" && token.kind == Token::Kind::sign) return list();
  if (token.text == "{" && token.kind == Token::Kind::sign) return dict();
  tokens_.wrong("an expression is missing");
}

ExpressionPtr ExpressionParser::list() {
  std::vector<ExpressionPtr> items;
  while (!tokens_.skip_sign("]")) {
    items.push_back(expression());
    if (!tokens_.at_sign("]")) tokens_.expect_sign(",");
  }
  return make_list(std::move(items), false);
}

ExpressionPtr ExpressionParser::dict() {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
  while (!tokens_.skip_sign("}")) {
    ExpressionPtr key = expression();
    tokens_.expect_sign(":");
    items.emplace_back(std::move(key), expression());
    if (!tokens_.at_sign("}")) tokens_.expect_sign(",");
  }
  return make_dict(std::move(items));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  for (;;) {
    if (tokens_.skip_sign(".")) {
      if (tokens_.at(Token::Kind::integer)) {
        value =
            make_item(std::move(value), make_constant(int64_t{std::stoll(tokens_.take().text)}));
      } else {
        value = make_attribute(std::move(value), tokens_.expect_name());
      }
    } else if (tokens_.skip_sign("[")) {
      value = subscript(std::move(value));
    } else if (tokens_.at_sign("(")) {
      value = make_call(std::move(value), arguments());
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr value) {
  ExpressionPtr parts[3];
  size_t count = 0;
  bool is_slice = false;
  while (!tokens_.skip_sign("]")) {
    if (tokens_.skip_sign(":")) {
      is_slice = true;
      if (++count > 2) tokens_.wrong("a slice with more than three parts");
    } else {
      if (parts[count]) tokens_.wrong("a subscript with a comma is not supported");
      parts[count] = expression();
      tokens_.skip_sign(",");
    }
  }
  if (is_slice) {
    return make_slice(std::move(value), std::move(parts[0]), std::move(parts[1]),
                      std::move(parts[2]));
  }
  if (!parts[0]) tokens_.wrong("a subscript is empty");
  return make_item(std::move(value), std::move(parts[0]));
}

CallArguments ExpressionParser::arguments() {
  CallArguments out;
  tokens_.expect_sign("(");
  while (!tokens_.skip_sign(")")) {
    if (tokens_.at_sign("*") || tokens_.at_sign("**")) {
      tokens_.wrong("arguments with * are not supported");
    }
    const Token& next = tokens_.ahead();
    if (tokens_.at(Token::Kind::name) && next.kind == Token::Kind::sign && next.text == "=") {
      std::string key = tokens_.take().text;
      tokens_.take();
      out.named.emplace_back(std::move(key), expression());
    } else {
      if (!out.named.empty()) tokens_.wrong("a positional argument after a named one");
      out.positional.push_back(expression());
    }
    if (!tokens_.at_sign(")")) tokens_.expect_sign(",");
  }
  return out;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr value) {
  while (tokens_.skip_sign("|")) value = filter(std::move(value));
  return value;
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr value) {
  std::string name = tokens_.expect_name();
  CallArguments given;
  if (tokens_.at_sign("(")) given = arguments();
  return make_filter(std::move(value), std::move(name), std::move(given));
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value) {
  const bool is_negated = tokens_.skip_name("not");
  std::string name = tokens_.expect_name();
  CallArguments given;
  const bool has_operand = tokens_.at(Token::Kind::string) || tokens_.at(Token::Kind::integer) ||
                           tokens_.at(Token::Kind::number) || tokens_.at_sign("[") ||
                           tokens_.at_sign("{") ||
                           (tokens_.at(Token::Kind::name) && !tokens_.at_name("else") &&
                            !tokens_.at_name("or") && !tokens_.at_name("and"));
  if (tokens_.at_sign("(")) {
    given = arguments();
  } else if (has_operand) {
    if (tokens_.at_name("is")) tokens_.wrong("two tests in a row need parentheses");
    given.positional.push_back(postfix(primary()));
  }
  ExpressionPtr out = make_test(std::move(value), std::move(name), std::move(given));
  return is_negated ? make_not(std::move(out)) : std::move(out);
}

}  // namespace seer::io::jinja
