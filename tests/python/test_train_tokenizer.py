"""tools/train_tokenizer.py, and the tokenizer of the repository that it made."""
import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer

from conftest import ROOT
from test_tokenizer import BROKEN, TEXTS
from tokenizer_families import training_text
from tokenizer_program import Program

SCRIPT = ROOT / "tools" / "train_tokenizer.py"
REFERENCE = ROOT / "assets" / "reference"


def train(out, *sources, ok=True):
    result = subprocess.run([sys.executable, SCRIPT, "--out", out, "--entries", "400", *map(str, sources)],
                            capture_output=True, text=True)
    assert (result.returncode == 0) == ok, result.stderr
    return result.stderr


def test_same_text_gives_same_bytes(tmp_path):
    text = training_text()[0]
    lines, plain = tmp_path / "a.jsonl", tmp_path / "b.txt"
    lines.write_text("".join(json.dumps({"text": part}) + "\n" for part in (text[:9000], text[9000:])))
    plain.write_bytes(text.encode())
    for out in ("one", "two"):
        train(tmp_path / out, f"{lines}:8k", f"{plain}:4k")
    one, two = ((tmp_path / out / "tokenizer.json").read_bytes() for out in ("one", "two"))
    assert one == two
    made = Tokenizer.from_str(one.decode())
    assert made.get_vocab_size() == 400
    assert made.encode("a").ids[0] == made.token_to_id("<|bos|>") == 0
    assert json.loads((tmp_path / "one" / "tokenizer_config.json").read_text())["eos_token"] == "<|eos|>"
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_too_little_text_is_an_error(tmp_path):
    plain = tmp_path / "b.txt"
    plain.write_text("abc abc")
    assert "7 characters" in train(tmp_path / "out", f"{plain}:1k", ok=False)
    assert "entries" in train(tmp_path / "out", f"{plain}:7", ok=False)
    assert "FILE:CHARACTERS" in train(tmp_path / "out", plain, ok=False)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def program(build):
    running = Program(build / "tokenizer_driver")
    yield running
    running.close()


def test_reference_tokenizer(program):
    answer = program("load", folder=str(REFERENCE))
    assert answer == {"vocab_size": 8192, "bos": 0, "eos": 1}
    library = Tokenizer.from_file(str(REFERENCE / "tokenizer.json"))
    for text in TEXTS + [b.decode(errors="replace") for b in BROKEN] + ["<|bos|>a<|eos|><|pad|>"]:
        want = library.encode(text).ids
        assert program.encode(text, True) == want and want[0] == 0
        assert program.decode(want, True) == library.decode(want)
