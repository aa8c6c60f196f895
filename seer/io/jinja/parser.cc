// Statements: text, {{ ... }} and {% ... %}.
#include "seer/io/jinja/parser.h"

#include <algorithm>

#include "seer/base/error.h"

namespace seer::io::jinja {

namespace {

using TokenKind = Token::Kind;
using Ends = std::initializer_list<std::string_view>;

constexpr int kDeepestStatement = 100;  // nested statements

class StatementParser {
 public:
  explicit StatementParser(TokenStream& tokens) : tokens_(tokens), expressions_(tokens) {}

  // Statements up to a tag of `ends`, whose name is then next; up to the end without any.
  Block block(Ends ends) {
    if (++depth_ > kDeepestStatement) tokens_.wrong("statements are nested too deep");
    Block out;
    for (;;) {
      const Token token = tokens_.take();
      if (token.kind == TokenKind::end) {
        if (ends.size() > 0) tokens_.wrong("{% " + std::string(*ends.begin()) + " %} is missing");
        break;
      }
      if (token.kind == TokenKind::data) {
        out.push_back(make_text(token.line, token.text));
      } else if (token.kind == TokenKind::variable_begin) {
        out.push_back(make_output(token.line, expressions_.tuple()));
        tokens_.expect(TokenKind::variable_end, "}}");
      } else {
        if (tokens_.at(TokenKind::name) &&
            std::find(ends.begin(), ends.end(), tokens_.current().text) != ends.end()) {
          break;
        }
        out.push_back(statement(token.line));
      }
    }
    --depth_;
    return out;
  }

 private:
  StatementPtr statement(int line) {
    const std::string name = tokens_.expect_name();
    if (name == "set") return set(line);
    if (name == "if") return if_(line);
    if (name == "for") return for_(line);
    if (name == "macro") return macro(line);
    if (name == "with") return with(line);
    if (name == "filter") return filter(line);
    if (name == "generation") return make_block(line, body("endgeneration"));
    if (name == "break" || name == "continue") {
      if (loops_ == 0) tokens_.wrong(name + " outside of a loop");
      end_tag();
      return make_jump(line, name == "break" ? Flow::break_loop : Flow::continue_loop);
    }
    tokens_.wrong("the tag {% " + name + " %} is not supported");
  }

  void end_tag() { tokens_.expect(TokenKind::block_end, "%}"); }

  // The rest of a tag, what follows, and the closing tag.
  Block body(std::string_view end) {
    end_tag();
    Block out = block({end});
    tokens_.take();
    end_tag();
    return out;
  }

  Target target() {
    std::vector<Target> parts;
    bool is_tuple = false;
    do {
      if (!parts.empty()) is_tuple = true;
      if (is_tuple && !tokens_.at(TokenKind::name) && !tokens_.at_sign("(")) break;
      parts.push_back(single_target());
    } while (tokens_.skip_sign(","));
    if (!is_tuple) return std::move(parts[0]);
    Target out;
    out.parts = std::move(parts);
    return out;
  }

  Target single_target() {
    if (tokens_.skip_sign("(")) {
      Target inside = target();
      tokens_.expect_sign(")");
      return inside;
    }
    Target out;
    out.name = tokens_.expect_name();
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (out.name == constant) tokens_.wrong("cannot assign to " + out.name);
    }
    if (tokens_.skip_sign(".")) out.attribute = tokens_.expect_name();
    return out;
  }

  StatementPtr set(int line) {
    Target to = target();
    if (tokens_.skip_sign("=")) {
      ExpressionPtr value = expressions_.tuple();
      end_tag();
      return make_set(line, std::move(to), std::move(value));
    }
    ExpressionPtr value = expressions_.filters(make_name(kInput));
    return make_set_block(line, std::move(to), std::move(value), kInput, closed_body("endset"));
  }

  StatementPtr filter(int line) {
    ExpressionPtr value = expressions_.filters(expressions_.filter(make_name(kInput)));
    return make_set_block(line, Target{}, std::move(value), kInput, closed_body("endfilter"));
  }

  // A body that break and continue do not leave.
  Block closed_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block out = body(end);
    loops_ = loops;
    return out;
  }

  StatementPtr if_(int line) {
    std::vector<Branch> branches;
    for (bool is_else = false;;) {
      Branch branch;
      if (!is_else) branch.test = expressions_.tuple(false);
      end_tag();
      branch.block = is_else ? block({"endif"}) : block({"endif", "elif", "else"});
      branches.push_back(std::move(branch));
      const std::string end = tokens_.take().text;
      if (end == "endif") break;
      is_else = end == "else";
    }
    end_tag();
    return make_if(line, std::move(branches));
  }

  StatementPtr for_(int line) {
    ForParts parts;
    parts.target = target();
    if (!tokens_.skip_name("in")) tokens_.wrong("a for without its in");
    parts.values = expressions_.tuple(false);
    if (tokens_.skip_name("if")) parts.test = expressions_.expression();
    if (tokens_.at_name("recursive")) tokens_.wrong("a recursive for is not supported");
    end_tag();
    ++loops_;
    parts.body = block({"endfor", "else"});
    --loops_;
    if (tokens_.take().text == "else") {
      end_tag();
      parts.otherwise = block({"endfor"});
      tokens_.take();
    }
    end_tag();
    return make_for(line, std::move(parts));
  }

  StatementPtr macro(int line) {
    std::string name = tokens_.expect_name();
    std::vector<Parameter> parameters;
    tokens_.expect_sign("(");
    while (!tokens_.skip_sign(")")) {
      Parameter parameter{tokens_.expect_name(), nullptr};
      if (tokens_.skip_sign("=")) parameter.missing = expressions_.expression();
      parameters.push_back(std::move(parameter));
      if (!tokens_.at_sign(")")) tokens_.expect_sign(",");
    }
    return make_macro(line, std::move(name), std::move(parameters), closed_body("endmacro"));
  }

  StatementPtr with(int line) {
    std::vector<std::pair<Target, ExpressionPtr>> values;
    while (!tokens_.at(TokenKind::block_end)) {
      if (!values.empty()) tokens_.expect_sign(",");
      Target to = single_target();
      tokens_.expect_sign("=");
      values.emplace_back(std::move(to), expressions_.expression());
    }
    return make_with(line, std::move(values), body("endwith"));
  }

  static constexpr const char* kInput = "(block)";  // no template can name it
  TokenStream& tokens_;
  ExpressionParser expressions_;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

Token TokenStream::take() {
  const Token token = current();
  if (pos_ + 1 < tokens_.size()) ++pos_;
  return token;
}

bool TokenStream::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  take();
  return true;
}

bool TokenStream::skip_sign(std::string_view sign) {
  if (!at_sign(sign)) return false;
  take();
  return true;
}

std::string TokenStream::expect_name() {
  if (!at(Token::Kind::name)) wrong("a name is missing");
  return take().text;
}

void TokenStream::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) wrong("'" + std::string(sign) + "' is missing");
}

void TokenStream::expect(Token::Kind kind, std::string_view what) {
  if (!at(kind)) wrong("'" + std::string(what) + "' is missing");
  take();
}

void TokenStream::wrong(const std::string& what) const {
  const Token& token = current();
  const std::string before = token.text.empty() || token.kind == Token::Kind::data
                                 ? std::string()
                                 : " before '" + token.text.substr(0, 40) + "'";
  fail(name_, ": line ", token.line, ": ", what, before);
}

Block parse(std::string_view source, const std::string& name) {
  TokenStream tokens(tokenize(source, name), name);
  return StatementParser(tokens).block({});
}

}  // namespace seer::io::jinja
