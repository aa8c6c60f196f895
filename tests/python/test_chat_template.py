"""Chat templates: the renderer beside transformers' own, and the program around it with its limits."""
import datetime
import importlib.util
import json
import pathlib
import sys
import time

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
TOOLS = [{"type": "function", "function": {"name": "sum", "description": "<a & \"b\">", "parameters": {"a": 1.0, "é": None}}}]
# What transformers adds to jinja2, and what it sets otherwise.
OWN = {
    "trim_and_lstrip": "a\n  {% if true %}\n  b\n    {%- endif %}\n  {# c #}\n{{ 1 }}\n",
    "loop_controls": "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "tojson": "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ 'é<>&' | tojson(ensure_ascii=true) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}",
    "generation": "a{% generation %}b{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}c",
    "raise": "a\n{{ raise_exception('no\nway') }}",
    "string_methods": "{{ messages[0]['role'].title() }} {{ 'a-b'.split('-') }} {{ 'ab'.center(6, '*') }} {{ '%s|' % 1 }}{{ '{:>4}'.format(7) }}",
    "namespace": "{% set ns = namespace(x=0, self=1) %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.self }}",
    "namespace_underscore": "{% set ns = namespace(_x=0) %}", "namespace_set": "{% set ns = namespace() %}{% set ns.__x = 1 %}",
    "dict": "{{ dict(a=1) }} {{ dict.fromkeys(['a', 'b'], 0) }}", "dict_type": "{{ dict.__class__ }}", "mro": "{{ ''.__class__.__mro__ }}",
    "immutable": "{{ [].append(1) }}", "undefined": "{{ nothing }}{{ nothing is defined }}{{ nothing.x }}",
    "tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}", "documents": "{{ documents is none }}",
    "syntax": "a\n{% if %}", "include": "{% include 'x' %}", "no_filter": "{{ 'a' | nosuch }}", "big_range": "{{ range(1000000) }}",
    "division": "\n\n{{ 1 / 0 }}", "integers": "{{ 99999999999999999999 + 1 }}", "surrogate": "{{ '\\ud83d\\ude00' | length }}"}


def renderer():
    path = pathlib.Path(__file__).parents[2] / "seer/io/chat_template.py"
    spec = importlib.util.spec_from_file_location("chat_template", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RENDERER = renderer()
LIMITS = {"seconds": 10, "memory": 1 << 30, "bytes": 1 << 20}


def messages(conversation):
    return [{"role": role, "content": content} for role, content in conversation]


def both(template, conversation, tools=None, generation=True):
    """The text or the error, as transformers has it and as ours."""
    inputs = {"messages": messages(conversation), "tools": tools, "add_generation_prompt": generation}
    try:
        want = _compile_jinja_template(template).render(documents=None, **inputs, **SPECIAL)
    except Exception as error:
        want = error
    return want, RENDERER.render({"template": template, "tokens": SPECIAL, "limits": LIMITS, **inputs, "tools": json.dumps(tools)})


def check(want, answer):
    if isinstance(want, Exception):
        assert answer["line"]
        assert answer["error"] == str(want) or "underscore" in answer["error"] and "underscore" in str(want)
    else:
        assert answer == {"text": want}


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_families(name, conversation, tools):
    for generation in (True, False):
        check(*both(TEMPLATES[name], CONVERSATIONS[conversation], tools, generation))


@pytest.mark.parametrize("name", OWN)
def test_what_transformers_adds(name):
    check(*both(OWN[name], CONVERSATIONS["system"], TOOLS))


def test_date():
    """Rendered twice, in case midnight falls between."""
    want, answer = both("{{ strftime_now('%Y-%m-%d %b %B %a') }}", [])
    assert answer["text"] in {datetime.datetime.now().strftime("%Y-%m-%d %b %B %a"), want}


@pytest.fixture(scope="module")
def program(build):
    running = Program(build / "tokenizer_driver")
    yield running
    running.close()


@pytest.fixture(scope="module")
def render(program, tmp_path_factory):
    made = FAMILIES["llama3"]()

    def run(template, conversation, tools=None, config=None):
        folder = tmp_path_factory.mktemp("chat")
        program("load", folder=str(save(made, folder, {**SPECIAL, "chat_template": template, **(config or {})})))
        return program("chat", messages=messages(conversation), tools=json.dumps(tools), add_generation_prompt=True)["text"]

    return run


@pytest.mark.parametrize("name", TEMPLATES)
def test_program_renders(render, name):
    want, _ = both(TEMPLATES[name], CONVERSATIONS["turns"], TOOLS)
    if isinstance(want, Exception):
        with pytest.raises(Refused, match="chat template"):
            render(TEMPLATES[name], CONVERSATIONS["turns"], TOOLS)
    else:
        assert render(TEMPLATES[name], CONVERSATIONS["turns"], TOOLS) == want


def test_program_keeps_every_character(render):
    text = "".join(map(chr, [*range(1, 0x300), 0x2028, 0xfeff, 0xffff, 0x1f600]))
    assert render("{{ messages[0].content }}", [("user", text)]) == text


NESTED = {"brackets": "{{ " + "(" * 5000 + ")" * 5000 + " }}", "minus": "{{ " + "-" * 5000 + "1 }}", "not": "{{ " + "not " * 5000 + "1 }}",
          "blocks": "{% if 1 %}" * 5000 + "{% endif %}" * 5000, "open_blocks": "{% if 1 %}" * 5000, "conditions": "{{ 1 " + "if 1 else 1 " * 5000 + "}}",
          "lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}", "sums": "{{ 1" + " + 1" * 20000 + " }}", "filters": "{{ 1" + "|string" * 20000 + " }}",
          "attributes": "{{ messages" + ".x" * 20000 + " }}", "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"}


@pytest.mark.parametrize("template, names", [
    *((template, "") for template in NESTED.values()), ("a\n{{ 'a' | nosuch }}", "line 2: \"No filter named 'nosuch'"),
    ("{{ raise_exception('no\nway\x1b[31m') }}", "no\\nway\\u001b[31m"),
    ("{{ 'a' * 999999999999 }}", "memory"),
    ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "memory"),
    ("{% set x = 'a' * 100000 %}{% for i in range(99999) %}{{ x }}{% endfor %}", "it writes more than 67108864 bytes"),
    ("{% set x = '\U0001f600' * 100000 %}{% for i in range(168) %}{{ x }}{% endfor %}", "it writes more than 67108864 bytes")],
    ids=[*NESTED, "filter", "escapes", "product", "doubling", "output", "wide_output"])
def test_refused(render, template, names):
    with pytest.raises(Refused) as refused:
        render(template, CONVERSATIONS["user"])
    text = str(refused.value)
    assert names in text and "tokenizer_config.json: chat_template" in text and "--raw" in text, text
    assert "\n" not in text and "\x1b" not in text and len(text) < 1000


def test_endless(render):
    began = time.monotonic()
    with pytest.raises(Refused, match="more than 10 seconds and was stopped"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", CONVERSATIONS["user"])
    assert time.monotonic() - began < 60


def test_without_jinja(build, monkeypatch, tmp_path):
    """Another Python, one without jinja2, none at all."""
    save(FAMILIES["llama3"](), tmp_path, {**SPECIAL, "chat_template": "{{ bos_token }}"})
    without = tmp_path / "python"
    without.write_text(f"#!/bin/sh\nshift\nexec {sys.executable} -I -S \"$@\"\n")
    without.chmod(0o755)
    for python, why in [(str(without), "No module named"), ("/no/such/python", "No such file"), ("/bin/false", "status 1"),
                        ("/bin/echo", "is not valid JSON")]:
        monkeypatch.setenv("SEER_PYTHON", python)
        program = Program(build / "tokenizer_driver")
        program("load", folder=str(tmp_path))
        with pytest.raises(Refused) as refused:
            program("chat", messages=[], add_generation_prompt=True)
        assert why in str(refused.value) and "--raw" in str(refused.value) and python in str(refused.value)
        program.close()


def test_named_templates(render):
    listed = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain {{ messages[0].content }}"}]
    assert render(listed, CONVERSATIONS["user"]) == "plain Hi"
    assert render(listed, CONVERSATIONS["user"], TOOLS) == "tools"


def test_template_file_goes_first(program, tmp_path):
    save(FAMILIES["llama3"](), tmp_path, {"chat_template": "config"})
    (tmp_path / "chat_template.jinja").write_text("file {{ bos_token is defined }}\n")
    program("load", folder=str(tmp_path))
    assert program("chat", messages=[], add_generation_prompt=True)["text"] == "file False"


def test_no_template(program, tmp_path):
    program("load", folder=str(save(FAMILIES["llama3"](), tmp_path)))
    with pytest.raises(Refused, match="no chat template"):
        program("chat", messages=[], add_generation_prompt=True)
