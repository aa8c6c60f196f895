"""The command line as the shell sees it: help, settings files, outputs, standard streams, messages.
seer/cli/settings_test.cc has what each setting takes."""
import json
import os
import stat
import subprocess

import pytest

from conftest import BUILD, ROOT
from test_cli import error_of

REFERENCE = ROOT / "assets" / "reference"
# What else a verb needs.
NEEDS = {"generate": ["--prompt", "x"], "pretrain": ["--data", REFERENCE / "config.json"], "tokenize": ["--text", "x"],
         "eval ppl": ["--data", REFERENCE / "config.json"]}


@pytest.mark.parametrize("words, want", [
    ("genrate", "unknown verb genrate; did you mean generate?"), ("eval pll", "got pll; did you mean ppl?"),
    ("bench block_sparse_atn", "did you mean block_sparse_attn?"),
    ("kernels --head-dmi=64", "unknown setting --head-dmi; did you mean --head-dim?"),
    ("kernels --block nan", "--block nan: want a whole number, 1 ... 1073741824"),
])
def test_near_misses(seer, words, want):
    assert want in error_of(seer(*words.split(), ok=False), 2)


def test_config_in_both_spellings(seer, tmp_path):
    config = tmp_path / "settings.json"
    config.write_text('{"about": "of \\u001b[31mtest", "dtype": "f32"}')
    for spelling in ([f"--config={config}"], ["--config", config]):
        result = seer("kernels", *spelling)
        assert result.stderr.startswith("of \\u001b[31mtest\n")
    config.write_text('{"dtype": "f31"}')
    for spelling in ([f"--config={config}"], ["--config", config]):
        assert "did you mean f32?" in error_of(seer("kernels", *spelling, ok=False), 2)
    assert "2 times" in error_of(seer("kernels", f"--config={config}", "--config", config, ok=False), 2)
    config.write_text('{"dtyp": "f32"}')
    assert 'unknown setting "dtyp"; did you mean dtype?' in error_of(seer("kernels", "--config", config, ok=False), 2)
    config.write_text("[" * 100_000)
    assert str(config) in error_of(seer("kernels", "--config", config, ok=False))


def test_help_of_groups_and_verbs(seer):
    for words in (["eval", "--help"], ["help", "eval"], ["eval", "help"]):
        text = seer(*words).stdout
        assert "eval ppl" in text and "eval recall" in text and "distill" not in text
    alone = seer("eval", ok=False)
    assert alone.returncode == 2 and "eval recall" in alone.stdout
    assert seer("help", "eval", "ppl").stdout == seer("eval", "ppl", "--help").stdout
    assert seer("help", "distill").stdout == seer("distill", "--help").stdout
    assert "  --steps INT=500" in seer("help", "distill").stdout


@pytest.mark.parametrize("verb, flag", [("generate", "model"), ("pretrain", "tokenizer"), ("tokenize", "model"), ("eval ppl", "model")])
def test_what_is_no_folder_of_a_model(seer, tmp_path, verb, flag):
    def wrong(value):
        out = ["--out", tmp_path / "out"] if verb == "pretrain" else []
        return error_of(seer(*verb.split(), *NEEDS[verb], *out, f"--{flag}", value, ok=False, cwd=tmp_path), 2)

    assert "hf download HuggingFaceTB/SmolLM2-135M --local-dir SmolLM2-135M" in wrong("HuggingFaceTB/SmolLM2-135M")
    assert "hf download" not in wrong("./a/b") and "no folder" in wrong("a/b/c")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "GGUF file" in wrong("model.gguf")
    (tmp_path / "a.bin").write_bytes(b"")
    assert "is a file: want the folder" in wrong("a.bin")


def kind_of(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


def test_what_is_no_file_is_written_through(seer, tmp_path):
    rows = json.loads(seer("kernels", "--json").stdout)
    printed = seer("kernels", "--json", "/dev/stdout").stdout
    assert printed.startswith("operation") and json.loads(printed[printed.index("[\n"):]) == rows
    # A pipe with a reader.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True)
    seer("kernels", "--json", fifo)
    assert json.loads(reader.communicate(timeout=60)[0]) == rows and kind_of(fifo) == stat.S_IFIFO
    seer("kernels", "--json", "/dev/null")
    assert kind_of("/dev/null") == stat.S_IFCHR
    # The file behind a link is replaced, the link stays.
    (tmp_path / "folder").mkdir()
    link, file = tmp_path / "link.json", tmp_path / "folder" / "file.json"
    link.symlink_to("folder/file.json")
    for _ in range(2):
        seer("kernels", "--json", link)
        assert link.is_symlink() and json.loads(file.read_text()) == rows
        file.write_text("old")
    # Standard output that is a file keeps what was printed there.
    with open(tmp_path / "all.txt", "w") as all_output:
        subprocess.run([BUILD / "seer", "kernels", "--json", "/dev/stdout"], stdout=all_output, check=True)
    text = (tmp_path / "all.txt").read_text()
    assert text.startswith("operation") and text.endswith("]\n")


def test_outputs_are_checked_before_the_work(seer, tmp_path):
    def wrong(*words, status=1):
        return error_of(seer(*words, ok=False), status)

    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    logits = ["logits", "--text", "x", "--out"]
    assert "it is a folder" in wrong(*logits, tmp_path)
    assert "circles" in wrong(*logits, loop)
    assert "is not a folder" in wrong(*logits, tmp_path / "file" / "a")
    assert "it is a folder" in wrong("kernels", "--json", tmp_path)
    recall = ["eval", "recall", "--data", REFERENCE / "config.json", "--png"]
    assert "it is a folder" in wrong(*recall, tmp_path)
    assert "is not a folder" in wrong("distill", "--data", REFERENCE / "config.json", "--out", tmp_path / "file")
    assert "/proc" in wrong("distill", "--data", REFERENCE / "config.json", "--out", "/proc/none/at/all")
    assert (tmp_path / "file").read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


def closed(descriptors, *words):
    """The program with some of its standard streams closed."""
    def close():
        for fd in descriptors:
            os.close(fd)

    streams = {} if 2 in descriptors else {"stderr": subprocess.PIPE}
    return subprocess.run([BUILD / "seer", *map(str, words)], preexec_fn=close, text=True, timeout=300, **streams)


def test_closed_streams(tmp_path):
    out = tmp_path / "logits.safetensors"
    result = closed([1], "kernels")
    assert result.returncode == 1 and "standard output: it is closed" in result.stderr
    from safetensors.torch import load_file
    closed([0, 1, 2], "logits", "--text", "some text", "--out", out, "--threads", 1)
    assert list(load_file(out)) == ["logits"]  # no message among its bytes


def test_strings_of_others_are_escaped(seer, tmp_path):
    bad = tmp_path / "a\x1b[31m\nb"
    bad.mkdir()
    (bad / "config.json").write_text("{")
    (bad / "tokenizer.json").write_text("{")
    for words in (["tokenize", "--text", "x", "--model", bad], ["logits", "--text", "x", "--model", bad], ["generate", "--prompt", "x", "--gates", bad],
                  ["distill", "--data", bad / "none", "--out", tmp_path / "out"]):
        message = error_of(seer(*words, ok=False))
        assert "\x1b" not in message and "\\u001b" in message, message
    assert len(error_of(seer("y" * 100_000, ok=False), 2)) < 300
    long = error_of(seer("tokenize", "--text", "x", "--model", "z" * 100_000, ok=False), 2)
    assert len(long) < 2100


def test_ids_beyond_the_vocabulary(seer):
    assert "no token has the number 2147483647" in error_of(seer("tokenize", "--ids", 2**31 - 1, ok=False))


def test_a_nested_model_config(seer, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"a":' * 50_000)
    assert str(config) in error_of(seer("pretrain", "--data", REFERENCE / "config.json", "--out", tmp_path / "out", "--tokenizer", REFERENCE,
                                        "--model-config", config, ok=False))
