"""Every setting of every verb with values that no setting, or not this one, takes: one line, status 2, before
anything is loaded. Settings files have the same rules."""
import json
import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import BUILD, ROOT
from test_cli import VERBS, error_of

REFERENCE = ROOT / "assets" / "reference"
NOWHERE = "no_folder_of_a_model"
HOSTILE = ["nan", "inf", "-1", "0", "", "1e999", "64.7", "18446744073709551616", "x\x1b[31m", " 1,,2"]
AGAIN = ["nan", ""]  # of a setting that another verb has, too
# What is not a number or one of a few words: paths and texts, which any word may be.
TEXTS = {"model", "tokenizer", "model-config", "text", "prompt", "prompt-file", "system", "file", "out", "gates", "data",
         "valid", "cache", "png", "ids"}
ZERO = {"threads", "seed", "clip", "valid-every", "synthetic", "skip", "warmup", "weight-decay", "sparsity", "strength",
        "sink-blocks", "local-blocks", "last-dense-rows", "max-new-tokens", "chunk", "temperature", "top-k", "gate-dim",
        "micro-batch-tokens", "constant-share", "final-share", "densities", "seconds"}
SHARES = {"skip", "stage-ends", "top-p", "constant-share", "final-share", "synthetic", "densities", "sparsity"}
# What else a verb needs to come as far as its model, which is not there.
NEEDS = {
    "run": ["--model", NOWHERE], "generate": ["--prompt", "x", "--model", NOWHERE], "tokenize": ["--text", "x", "--model", NOWHERE],
    "logits": ["--text", "x", "--model", NOWHERE], "kernels": [], "bench": ["prefill", "--out=", "--model", NOWHERE],
    "distill": ["--data", REFERENCE / "config.json", "--model", NOWHERE], "eval ppl": ["--data", REFERENCE / "config.json", "--model", NOWHERE],
    "eval recall": ["--data", REFERENCE / "config.json", "--model", NOWHERE],
    "pretrain": ["--data", REFERENCE / "config.json", "--tokenizer", NOWHERE],
}


def settings_of(seer, verb):
    """(name, type) of each setting that takes a value, as --help lists them."""
    found = re.findall(r"^  --([a-z-]+) (INT|NUMBER|TEXT)", seer(*verb.split(), "--help").stdout, flags=re.M)
    assert found
    return found


def is_taken(name, kind, value):
    """Whether the setting takes the value, by the tables above."""
    if value == "64.7":
        return kind == "NUMBER" and name not in SHARES
    return (value == "0" and name in ZERO) or (value == "-1" and name == "skip")


def test_hostile_values(seer, tmp_path):
    cases, seen = [], set()
    for verb in VERBS:
        for name, kind in settings_of(seer, verb):
            is_text = name in TEXTS and kind == "TEXT"
            values = [""] if is_text else AGAIN if (name, kind) in seen else HOSTILE
            seen.add((name, kind))
            cases += [(verb, name, kind, value) for value in values if (verb, name) != ("bench", "out")]
    assert len(seen) > 60

    def check(case):
        verb, name, kind, value = case
        out = ["--out", tmp_path / "out"] if verb in ("distill", "pretrain") and name != "out" else []
        result = seer(*verb.split(), *NEEDS[verb], *out, f"--{name}={value}", ok=False, timeout=60)
        assert "\x1b" not in result.stderr, case
        message = error_of(result, 2)
        if is_taken(name, kind, value):
            assert NOWHERE in message, (case, message)  # all else was right
        else:
            assert NOWHERE not in message and name in message, (case, message)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(check, cases))
    assert not (tmp_path / "out").exists()


JSON_VALUES = ['"64"', "64.7", "true", "null", "[]", "{}", '""', "[[1]]", "NaN", "-Infinity", "1e999", "18446744073709551616"]


@pytest.mark.parametrize("verb, name, takes", [
    ("distill", "steps", []), ("distill", "learning-rate", ["64.7"]), ("distill", "loss", []), ("distill", "stream", ["true"]),
    ("distill", "weights", ["[]"]), ("pretrain", "lengths", []), ("eval ppl", "methods", []), ("eval ppl", "seed", []),
    ("generate", "gates", ['"64"', '""']),
])
def test_settings_files_are_as_strict(seer, tmp_path, verb, name, takes):
    config = tmp_path / "settings.json"
    for value in JSON_VALUES:
        config.write_text(f'{{"{name}": {value}}}')
        out = ["--out", tmp_path / "out"] if verb in ("distill", "pretrain") else []
        message = error_of(seer(*verb.split(), *NEEDS[verb], *out, f"--config={config}", ok=False), 2)
        assert (NOWHERE in message) == (value in takes), (value, message)
        assert value in takes or (f'"{name}"' in message and str(config) in message), (value, message)


def test_messages_say_what_is_wanted(seer):
    def wrong(verb, *flags):
        return error_of(seer(*verb.split(), *flags, ok=False), 2).removeprefix("seer: error: ")

    distill = ["--data", REFERENCE / "config.json", "--out", "out"]
    for words, want in [
        (["generate", "--sparsity", "90"], "--sparsity 90: want a number, 0 ... 1, 1 not included; did you mean 0.9?"),
        (["generate", "--sink-blocks", "-1"], "--sink-blocks -1: want a whole number, 0 ... 1073741824"),
        (["distill", *distill, "--steps", "64.7"], "--steps 64.7: want a whole number, 1 ... 1000000000"),
        (["distill", *distill, "--learning-rate", "nan"], "--learning-rate nan: want a number, above 0, at most 100"),
        (["distill", *distill, "--skip", "-2"], "--skip -2: want a number, 0 ... 1, 1 not included, or -1"),
        (["distill", *distill, "--block", "0"], "--block 0: want a whole number, 16 ... 128, a multiple of 16"),
        (["distill", *distill, "--loss", "kk"], "--loss kk: want kl or mse; did you mean kl?"),
        (["distill", *distill, "--steps", "1", "--steps", "2"], "--steps is given 2 times, want it once"),
        (["distill", *distill, "--steps", "--restart"], "--steps needs a value, but the setting --restart stands behind it"),
        (["distill", *distill, "--steps"], "--steps needs a value behind it"),
        (["eval ppl", "--methods", "dense,stremaing"],
         "--methods stremaing: want dense, seer, untrained, random, streaming or oracle; did you mean streaming?"),
        (["generate", "--device", "gpu"], "--device gpu: want auto, cpu, cuda or cuda:N"),
        (["generate", "--prompt", "x", "--also", "topp:0.9"], "did you mean top_p?"),
        (["generate", "--leanring-rate", "1"], "unknown setting --leanring-rate; `seer generate --help` lists the settings"),
        (["distill", "--leanring-rate", "1"], "unknown setting --leanring-rate; did you mean --learning-rate?"),
        (["generate", "--sparcity=0.5"], "unknown setting --sparcity; did you mean --sparsity?"),
        (["generate", "text"], "the word text belongs to no setting"),
        (["genrate"], "unknown verb genrate; did you mean generate?"), (["eval", "pll"], "got pll; did you mean ppl?"),
        (["bench", "block_sparse_atn"], "did you mean block_sparse_attn?"),
        (["kernels", "--dtype", "bf-16"], "--dtype bf-16: want f32, f16 or bf16; did you mean bf16?"),
        (["pretrain", *distill, "--kv-heads", "0"], "--kv-heads 0: want"),
        (["pretrain", *distill, "--kv-heads", "3"], "--heads 4: want a multiple of --kv-heads 3"),
        (["pretrain", *distill, "--lengths", "1000"], "--tokens-per-step 131072: want a multiple of every length, here 1000"),
        (["pretrain", *distill, "--lengths", "1024,2048,4096", "--stage-ends", "0.5,0.2"], "--stage-ends: want each above the one before"),
    ]:
        assert want in wrong(*words), words


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
    # Flags win.
    config.write_text('{"head-dim": 72}')
    rows = lambda *words: json.loads(seer("kernels", "--config", config, *words, "--json").stdout)
    assert rows() != rows("--head-dim", "64")


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
        needs = [word for word in NEEDS[verb] if word not in (NOWHERE, f"--{flag}")]
        out = ["--out", tmp_path / "out"] if verb == "pretrain" else []
        return error_of(seer(*verb.split(), *needs, *out, f"--{flag}", value, ok=False, cwd=tmp_path), 2)

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
