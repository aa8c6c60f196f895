// Templates rendered, white space above all, and templates that are damaged. The Python tests compare
// with Jinja itself.
#include "seer/io/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"
#include "seer/base/random.h"

namespace seer::io::jinja {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Context context() {
  return {{"messages", Value::list({Value::dict({{"role", "user"}, {"content", " Hi "}}),
                                    Value::dict({{"role", "assistant"}, {"content", "Yes"}})})},
          {"bos_token", "<s>"},
          {"tools", Value::none()}};
}

std::string run(const std::string& source) {
  return render(source, "t", context());
}

std::string error_of(const std::string& source) {
  try {
    run(source);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Template, BlocksLeaveNoLines) {
  EXPECT_EQ(run("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(run("a\n  {%+ if true %}\n b {% endif +%}\nc"), "a\n   b \nc");
  EXPECT_EQ(run("a  {{- 1 -}}  b {#- x -#} c"), "a1bc");
  EXPECT_EQ(run("{# x #}\n\n{{ 1 }}\n\n"), "\n1\n");
  EXPECT_EQ(run("a\r\nb\rc"), "a\nb\nc");
  EXPECT_EQ(run(""), "");
}

TEST(Template, Conversation) {
  EXPECT_EQ(run("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}"
                "{% if not loop.last %};{% endif %}{% endfor %}"),
            "<s>[user]Hi;[assistant]Yes");
  EXPECT_EQ(run("{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}"
                "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ tools is none }}"),
            "1True");
}

TEST(Template, ErrorsNameTheLine) {
  EXPECT_THAT(error_of("a\n\n{{ 1 | nosuch }}"),
              AllOf(HasSubstr("t: line 3"), HasSubstr("nosuch")));
  EXPECT_THAT(error_of("{% if 1 %}\n{{ raise_exception('two\nlines') }}\n{% endif %}"),
              AllOf(HasSubstr("line 2"), HasSubstr("two lines")));
  EXPECT_THAT(error_of("a\n{% import 'x' as y %}"),
              AllOf(HasSubstr("line 2"), HasSubstr("import")));
  EXPECT_THAT(error_of("\xFF"), HasSubstr("UTF-8"));
}

TEST(Template, DamagedOnesNeverCrash) {
  const std::string whole =
      "{% macro f(a, b=1) %}{{ a }}{% endmacro %}{% for m, n in messages[::-1] if m.x %}{{ "
      "loop.index "
      "}}{{- m['a'].split('\\n')[0] | tojson(indent=2) -}}{% else %}{% set ns.x = (1, [2], {'a': "
      "3}) "
      "%}{% endfor %}{# c #}{% raw %}x{% endraw %}{% set y %}z{% endset %}{{ f(1, b=2) ~ 2 // 3 ** "
      "2 }}"
      "{{ 'a' if x is not defined else y | default('z', true) }}{{ messages[0].content[1:-1:2] }}";
  Random random(5);
  int errors = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = whole;
    for (uint64_t k = 0; k <= random.below(3); ++k) {
      const size_t at = random.below(text.size());
      switch (random.below(3)) {
        case 0: text[at] = static_cast<char>(random.below(128)); break;
        case 1: text.erase(at, random.below(20)); break;
        default: text.insert(at, text.substr(random.below(text.size()), random.below(20)));
      }
    }
    try {
      run(text);
    } catch (const Error& error) {
      ++errors;
      ASSERT_THAT(error.what(), HasSubstr("t: line"));
    }
  }
  EXPECT_GT(errors, 5000);
}

}  // namespace
}  // namespace seer::io::jinja
