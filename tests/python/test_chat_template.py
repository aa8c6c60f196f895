"""Chat templates rendered by ours and as transformers renders them."""
import datetime

import jinja2
import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from chat_templates import TEMPLATES
from tokenizer_families import FAMILIES, save
from tokenizer_program import Program, Refused

SPECIAL = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
CONVERSATIONS = {
    "user": [("user", "Hi")],
    "turns": [("user", " What is 2 + 2?\n"), ("assistant", "4\n\n"), ("user", "Sure?")],
    "system": [("system", "  Be \"short\".\n"), ("user", "1 < 2 & 3 > 2 'ok'"), ("assistant", " ok "), ("user", "語 😀\t\u00a0")],
    "thinking": [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "<think>\nyes\n</think>\n\nd")],
    "many": [(r, f"{r} {i}") for i in range(4) for r in ("user", "assistant")],
    "empty_content": [("system", ""), ("user", ""), ("assistant", "")],
    "wrong_order": [("assistant", "a"), ("user", "b")],
    "other_role": [("user", "a"), ("critic", "b")],
    "tool": [("user", "a"), ("tool", "b"), ("tool", "c"), ("user", "d")],
}
SNIPPETS = r"""
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1 ~ 2 ~ 'a' ~ none ~ true ~ [1, 'a', "it's"] ~ (1,) ~ {'a': 1.0} }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ none == false }} {{ [1] == [1] }} {{ (1,) == [1] }} {{ 'é' > 'z' }}
{{ 'a' in 'cat' }} {{ 'x' not in 'cat' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 3 in (1, 2) }} {{ not 1 in [1] }} {{ 'a' in undefined_thing }}
{{ 'yes' if false else 'no' }}|{{ 'yes' if false }}|{{ 'a' if 1 if 0 else 'b' }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ not true and false or true }} {{ (none or 'x') and 'y' }} {{ 0 or [] or {} }} {{ '' and 1 }}
{{ messages[0].content[0] }} {{ 'héllo'[1:3] }} {{ 'héllo'[::-1] }} {{ [1,2,3,4][::2] }} {{ [1,2,3,4][-2:] }} {{ [1,2,3][10:] }} {{ 'abc'[-1] }} {{ [1,2,3][:-1] }} {{ (1,2,3)[1:] }} {{ [1,2,3,4][3:0:-2] }}
{{ [1, 2][5] is defined }} {{ messages[0]['nothing'] is undefined }} {{ messages[0].nothing is none }} {{ nothing }} {{ nothing is string }}|{{ messages.nothing }}
{{ {'a': 1, 'b': [1, {'c': none}], 'd': true, 'e': 1.5} | tojson }} {{ 'a"\\\n\t/é<>\x01' | tojson }} {{ [] | tojson }} {{ [1,2] | tojson(indent=2) }} {{ {'b':1,'a':{}} | tojson(indent=2, sort_keys=true) }} {{ 'é😀' | tojson(ensure_ascii=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3} | tojson }}
{{ 1e16 }} {{ 1e-5 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 10 / 5 }} {{ 1_000 }} {{ 1e22 }} {{ 0.0001 }} {{ 5e-324 }} {{ -0.0 }} {{ 1.5e300 * 1e10 }}
{{ 'a' 'b' "c" }} {{ 'tab\tnew\\n \'q\' \x41 \u00e9 \U0001F600 \101 \q' }} {{ "dq \" 'x'" }} {{ 'line\
join' }}
{{ '  x y ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ '\u00a0\u2003 a\x1c' | trim }}|{{ 5 | trim }}
{{ 'Hello World-again (yes)' | title }} {{ 'hELLO wORLD' | capitalize }} {{ 'Straße É' | upper }} {{ 'ÀÉ ΑΣΑ' | lower }} {{ 'ab'.upper() }} {{ 'ÄB'.lower() }} {{ 'élan VITAL'.capitalize() }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b  c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'abc'.split('x') }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'abc'.replace('', '.') }} {{ 'aXbX' | replace('X', '-', 1) }} {{ 5 | replace(5, 6) }}
{{ 'xxabcxx'.strip('x') }} {{ 'abcab'.lstrip('ab') }} {{ 'abcab'.rstrip('ab') }} {{ ' a '.strip() ~ '|' }} {{ 'éaé'.strip('é') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.removeprefix('a').removesuffix('c') }} {{ 'éabc'.find('b') }} {{ 'abc'.find('z') }} {{ 'banana'.count('an') }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ ', '.join(['a', 'b']) }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }} {{ [1, 2, 3] | sum }} {{ [1, 5, 2] | max }} {{ ['b', 'A'] | min }} {{ [1, 1, 2] | unique | list }}
{{ messages | map(attribute='role') | list }} {{ ['a', 'b'] | map('upper') | join('-') }} {{ [1, 2, 3, 4] | select('even') | list }} {{ [1, 2, 3] | reject('equalto', 2) | list }} {{ [0, 1, ''] | select | list }} {{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }} {{ messages | rejectattr('role', 'in', ['user']) | list | length }} {{ messages | selectattr('nothing', 'defined') | list }}
{{ {'b': 1, 'a': 2} | items | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1}.items() | list }} {{ {'b': 1}.keys() | list }} {{ {'b': 1}.values() | list }} {{ {'b': 1}.get('b') }} {{ {'b': 1}.get('x') }} {{ {'b': 1}.get('x', 'd') }} {{ {'a': 1, 'b': 2} | length }} {{ dict(a=1) }} {{ {'items': 5}['items'] }}
{{ nothing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | d('x') }} {{ nothing | default }}
{{ '42' | int + 1 }} {{ 'x' | int(7) }} {{ '3.7' | int }} {{ 3.7 | int }} {{ '1.5' | float }} {{ -3 | abs }} {{ (-3) | abs }} {{ 3 | string ~ 'x' }} {{ ' 12 ' | int }} {{ true | int }} {{ +3 }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}|{{ 'a\n' | indent }}|
{{ [1, 2, 3] | first }} {{ [1, 2, 3] | last }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | list }} {{ 'héé' | length }} {{ [] | first is defined }} {{ 'abc' | first }} {{ (1, 2) | list }} {{ 'a' | safe }}
{{ 1 is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is integer }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ none is none }} {{ 4 is divisibleby 2 }} {{ 3 is odd }} {{ 2 is even }} {{ 1 is eq 1 }} {{ 1 is not ne(1) }} {{ 2 is gt 1 }} {{ 'a' is in ['a'] }} {{ 'AB' is upper }} {{ 'ab' is lower }} {{ '1' is upper }} {{ none is sameas none }} {{ true is true }} {{ 1 is false }} {{ range is callable }}
{% for x in range(3) %}{{ x }}{{ loop.cycle('a', 'b') }}{% if loop.changed(x // 2) %}!{% endif %}{% endfor %} {{ range(5, 0, -2) | list }} {{ range(2, 4) | list }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}|{% for c in 'héy' %}[{{ c }}]{% endfor %}|{% for k in {'x': 1} %}{{ k }}{% endfor %}|{% for x in nothing %}{% else %}none{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }} {% if true %}{% set x = 9 %}{% endif %}{{ x }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }} {% set (c, d) = [3, 4] %}{{ c + d }}
{% set ns = namespace(x=0, y='a') %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% set ns.z = i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}{{ ns.nothing }} {{ ns['x'] }} {% set m = namespace({'q': 1}) %}{{ m.q }}
{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{{ a }}{{ b }};{% endfor %}{{ loop.index }}{% endfor %}{% for a, (b, c) in [[1, [2, 3]]] %}{{ a + b + c }}{% endfor %}
{% for i in range(6) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% macro f(a, b=a ~ '!', c=none) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{{ f('x', 'y', 'z') }}{{ f() }}{{ f(b=3) }}{% macro g(n) %}{{ n }}{% if n > 0 %}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(3) }}
{% set x %}a {{ 1 + 1 }} b{% endset %}{{ x }}|{% set y | upper | trim %} abc {% endset %}{{ y }}|{% with z = 5 %}{{ z }}{% set w = 1 %}{% endwith %}{{ z is defined }}{{ w is defined }}
{%- if true -%} a {%- endif -%} b {{- ' c ' -}} d {#- comment -#} e {% raw %} {{ x }} {%- endraw %} f
  {% if true %}  
  keep {% endif %}  
{# comment #}
	{%+ if true %}x{% endif +%}
y{{ 1 }}
{% if 1 %}a{% elif 0 %}b{% else %}c{% endif %}{% if nothing %}x{% elif none %}y{% elif [] %}z{% else %}w{% endif %}
{{ {'a': {'b': [10, 20]}}.a.b[1] }} {{ {'a': {'b': 1}}['a']['b'] }} {{ [[1, 2], [3]][0].1 }} {{ ({'x': 1}).x }} {{ {'n': -1}.n }} {{ -{'n': 1}.n }}
{{ loop is defined }} {{ self is defined and false }} {{ true and not false }} {{ True }} {{ None is none }} {{ False }}
{{ [1, 2,] }} {{ {'a': 1,} }} {{ () }} {{ (1) }} {{ 1, 2 }} {{ [1] + [2] }} {{ 'ab' * 2 }} {{ 2 * 'ab' }} {{ 'x' * -1 }} {{ {'a': 1, 'a': 2} }}
{{ 'a' | upper ~ 'b' | lower }} {{ ('a' ~ 'b') | upper }} {{ -1 | abs }} {{ 2 * 3 | string }} {{ messages | length > 1 and 'many' or 'one' }} {{ 'a' is string and 'b' }} {{ not 'a' is string }} {{ 1 + 1 is odd }}
""".strip("\n")


@pytest.fixture(scope="module")
def program(build):
    running = Program(build / "tokenizer_driver")
    yield running
    running.close()


@pytest.fixture(scope="module")
def render(program, tmp_path_factory):
    made = FAMILIES["llama3"]()

    def run(template, conversation, add_generation_prompt=True, config=None):
        folder = tmp_path_factory.mktemp("chat")
        program("load", folder=str(save(made, folder, {**SPECIAL, "chat_template": template, **(config or {})})))
        messages = [{"role": role, "content": content} for role, content in conversation]
        return program("chat", messages=messages, add_generation_prompt=add_generation_prompt)["text"]

    return run


def expected(template, conversation, add_generation_prompt=True):
    return _compile_jinja_template(template).render(
        messages=[{"role": role, "content": content} for role, content in conversation], tools=None, documents=None,
        add_generation_prompt=add_generation_prompt, **SPECIAL)


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_families(render, name, conversation, generation):
    template, turns = TEMPLATES[name], CONVERSATIONS[conversation]
    try:
        want = expected(template, turns, generation)
    except jinja2.exceptions.TemplateError as error:
        with pytest.raises(Refused) as refused:
            render(template, turns, generation)
        assert str(error) in str(refused.value)
        return
    assert render(template, turns, generation) == want


@pytest.mark.parametrize("snippet", SNIPPETS.split("\n{{"), ids=lambda s: s[:30])
def test_snippets(render, snippet):
    template = snippet if snippet.startswith("{{") else "{{" + snippet
    assert render(template, CONVERSATIONS["turns"]) == expected(template, CONVERSATIONS["turns"])


def test_date(render):
    """Rendered twice, in case midnight falls between."""
    template = "{{ strftime_now('%Y-%m-%d %b %B %a') }}"
    assert render(template, []) in {datetime.datetime.now().strftime("%Y-%m-%d %b %B %a"), expected(template, [])}


@pytest.mark.parametrize("template, names", [
    ("{% include 'x' %}", "include"), ("a\n{% extends 'x' %}", "line 2"), ("{% block x %}{% endblock %}", "block"),
    ("{{ 'a' | nosuch }}", "nosuch"), ("{{ 1 is nosuch }}", "nosuch"), ("{{ 'a'.format(1) }}", "format()"),
    ("{{ [].append(1) }}", "append()"), ("{{ {}.update({}) }}", "update()"), ("{{ '%s' % 1 }}", "str and int"),
    ("{% for x in [1] recursive %}{% endfor %}", "recursive"), ("{{ f(*[1]) }}", "*"), ("{{ 'a' | tojson(x=1) }}", "x="),
    ("{{ nothing.x }}", "nothing"), ("{{ nothing + 'a' }}", "nothing"), ("{{ nothing() }}", "nothing"), ("{{ 'a' + 1 }}", "str and int"),
    ("{{ 1 / 0 }}", "zero"), ("{{ 9223372036854775807 + 1 }}", "64 bits"), ("{{ 99999999999999999999 }}", "64 bits"),
    ("{{ 1 < 'a' }}", "order"), ("{% set x.y = 1 %}", "namespace"), ("{% for a, b in [[1]] %}{% endfor %}", "names"),
    ("{% if 1 %}", "endif"), ("{{ 1", "}}"), ("{# x", "#}"), ("{% raw %}", "endraw"), ("{{ 'a }}", "string"), ("{{ (1 }}", "}"),
    ("{{ }}", "expression"), ("{% break %}", "loop"), ("{{ 1 ? 2 }}", "?"), ("{% for x in 5 %}{% endfor %}", "int"),
    ("{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "f()"), ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep"),
    ("{{ 'a' * 999999999999 }}", "grows"), ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "grows"),
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "too long"), ("{{ range(1000000) }}", "range()"),
    ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "deep"), ("{{ " + "-" * 5000 + "1 }}", "deep"), ("{{ " + "not " * 5000 + "1 }}", "deep"),
    ("{% if 1 %}" * 5000, "deep"), ("{{ 1 " + "if 1 else 1 " * 5000 + "}}", "deep"), ("{{ cycler(1) }}", "cycler"),
    ("{{ raise_exception('no\nway') }}", "no way")], ids=lambda v: v[:30])
def test_refused(render, template, names):
    with pytest.raises(Refused) as refused:
        render(template, CONVERSATIONS["user"])
    text = str(refused.value)
    assert names in text and "chat_template" in text and "line " in text and "\n" not in text, text


def test_named_templates(render):
    listed = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain {{ messages[0].content }}"}]
    assert render(listed, CONVERSATIONS["user"]) == "plain Hi"


def test_template_file_goes_first(program, tmp_path):
    save(FAMILIES["llama3"](), tmp_path, {"chat_template": "config"})
    (tmp_path / "chat_template.jinja").write_text("file {{ bos_token is defined }}\n")
    program("load", folder=str(tmp_path))
    assert program("chat", messages=[], add_generation_prompt=True)["text"] == "file False"


def test_no_template(program, tmp_path):
    program("load", folder=str(save(FAMILIES["llama3"](), tmp_path)))
    with pytest.raises(Refused, match="chat_template"):
        program("chat", messages=[], add_generation_prompt=True)
