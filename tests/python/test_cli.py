"""The program as a user runs it: its main jobs on the embedded model, and wrong input."""
import gzip
import json
import pathlib
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT

REFERENCE = ROOT / "assets" / "reference"
VERBS = ["run", "distill", "finetune", "eval ppl", "eval recall", "eval facts", "eval copies", "eval needle", "eval heads", "eval attention", "report", "generate", "pretrain", "bench", "kernels", "tokenize", "logits"]
# Settings that make every run short.
QUICK = ["--threads", "1"]


@pytest.fixture(scope="session")
def text(tmp_path_factory, build):
    """Some 10,000 tokens of the text that `seer run` takes by default."""
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text((build / "default_text.txt").read_text()[:32_000])
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The embedded model without its gates."""
    folder = tmp_path_factory.mktemp("models") / "reference"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("gates"))
    return folder


def error_of(result, status=1):
    """The one line of an error."""
    assert result.returncode == status, (result.returncode, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("seer: error: ")]
    assert len(lines) == 1 and result.stderr.splitlines()[-1] == lines[0], result.stderr
    assert "terminate" not in result.stderr and ".cc:" not in lines[0]
    return lines[0]


def test_version_and_help(seer):
    assert re.fullmatch(r"seer \d+\.\d+\.\d+\n", seer("--version").stdout)
    overview = seer("--help").stdout
    for verb in VERBS:
        assert f"  {verb}" in overview
        assert "Usage" in seer(*verb.split(), "--help").stdout


def test_wrong_usage_is_status_2(seer):
    assert "unknown verb" in error_of(seer("frobnicate", ok=False), 2)
    assert "eval ppl" in error_of(seer("eval", "mmlu", ok=False), 2)
    assert "--sparsty" in error_of(seer("generate", "--sparsty", "0.5", ok=False), 2)
    assert "--data" in error_of(seer("eval", "ppl", ok=False), 2)
    assert "--sparsity 1.5: want a number, 0 ... 1" in error_of(
        seer("generate", "--prompt", "x", "--sparsity", "1.5", ok=False), 2)
    assert "--rule best: want nz_ratio, threshold" in error_of(
        seer("generate", "--prompt", "x", "--rule", "best", ok=False), 2)
    assert "--strength" in error_of(
        seer("generate", "--prompt", "x", "--rule", "threshold", "--strength", "2", ok=False), 2)
    assert "needs --strength" in error_of(
        seer("generate", "--prompt", "x", "--rule", "threshold", ok=False), 2)


def test_settings_file(seer, tmp_path):
    config = tmp_path / "settings.json"
    config.write_text('{"about": "a test", "sparsty": 0.5}')
    assert "sparsty" in error_of(seer("generate", "--config", config, ok=False), 2)
    config.write_text('{"sparsity": [1.5], "prompt": "x"}')
    assert "1.5" in error_of(seer("generate", "--config", config, ok=False), 2)
    config.write_text("{")
    assert "settings.json is not valid JSON" in error_of(seer("generate", "--config", config, ok=False))


def test_settings_file_gives_what_is_required(seer, text, tmp_path):
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"data": [str(text)], "out": str(tmp_path / "out"), "length": 256, "sequences": 1, "steps": 1}))
    seer("distill", "--config", config)
    assert (tmp_path / "out" / "run.json").exists()
    config.write_text("{}")
    assert "--data" in error_of(seer("distill", "--config", config, ok=False), 2)


def test_what_is_written_is_no_file_of_another_setting(seer, tmp_path):
    text, config, fresh = tmp_path / "text.txt", tmp_path / "settings.json", tmp_path / "fresh"
    text.write_text("mine")
    config.write_text("{}")
    recall = ["eval", "recall", "--data", text]
    for words, other in [([*recall, "--json", tmp_path / "." / "text.txt"], "--data"), ([*recall, "--png", text], "--data"), ([*recall, "--png", fresh, "--json", fresh], "--png"),
                         (["report", config, "--out", config], "paths"), (["kernels", "--config", config, "--json", config], "--config")]:
        assert f"is also the file of {other}, which would be lost" in error_of(seer(*words, ok=False), 2)
    assert (text.read_text(), config.read_text(), fresh.exists()) == ("mine", "{}", False)
    seer("kernels", "--config", config, "--json", "/dev/null")


def test_generate_is_deterministic_and_chunks_agree(seer, text):
    base = ["generate", "--prompt-file", text, "--max-new-tokens", 8, "--sparsity", 0.5, "--dtype", "f32"]
    whole = seer(*base).stdout
    assert whole == seer(*base).stdout
    assert whole == seer(*base, "--chunk", 4096).stdout
    assert "dense" in seer(*base[:5], "--method", "dense").stderr
    assert "--sparsity means nothing with --method dense" in error_of(seer(*base, "--method", "dense", ok=False), 2)
    sampled = [seer(*base[:4], 8, "--temperature", 0.8, "--top-p", 0.9, "--top-k", 50, "--seed",
                    seed, "--method", "dense").stdout for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_eval_ppl(seer, text, tmp_path):
    out = tmp_path / "rows.json"
    result = seer("eval", "ppl", "--data", text, "--lengths", "1024,2048", "--sparsity", "0,0.7",
                  "--methods", "dense,seer,random,oracle", "--json", out)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2 * (1 + 3 * 2)
    for length in (1024, 2048):
        of = {(r["method"], r["sparsity"]): r for r in rows if r["length"] == length}
        dense = of["dense", 0.0]
        # With nothing left out every method is dense attention.
        for method in ("seer", "random", "oracle"):
            assert of[method, 0.0]["density"] == 1
            assert of[method, 0.0]["perplexity"] == pytest.approx(dense["perplexity"], rel=5e-3)
        assert of["random", 0.7]["perplexity"] > of["seer", 0.7]["perplexity"]
        assert of["seer", 0.7]["density"] < 0.5
    assert "perplexity" in result.stdout
    on_stdout = seer("eval", "ppl", "--data", text, "--lengths", 1024, "--also",
                     "threshold:0.005,top_p:0.9,row_budget:256,head_budget:0.3", "--json")
    rules = [row.get("rule") for row in json.loads(on_stdout.stdout)["rows"]]
    assert rules[-4:] == ["threshold", "top_p", "row_budget", "head_budget"]
    assert "rule:strength" in error_of(
        seer("eval", "ppl", "--data", text, "--also", "threshold", ok=False), 2)


def test_eval_recall(seer, text, model, tmp_path):
    cpu, gpu = tmp_path / "on_cpu" / "gates", tmp_path / "on_gpu" / "gates"
    for folder in (cpu, gpu):
        shutil.copytree(REFERENCE / "gates", folder)
    weights = load_file(gpu / "attn_gate_weights.safetensors")  # gates that learnt nothing
    save_file({k: torch.randn_like(v) * 0.02 for k, v in weights.items()}, gpu / "attn_gate_weights.safetensors")
    out, png = tmp_path / "recall.json", tmp_path / "pictures" / "recall.png"
    result = seer("eval", "recall", "--model", model, "--gates", f"{gpu},{cpu}", "--data", text, "--length", 1024,
                  "--documents", 1, "--methods", "seer,oracle,streaming,random,untrained", "--sparsity", "0,0.5",
                  "--min-ratio", 1, "--json", out, "--png", png, *QUICK)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2 * (2 + 4)
    of = {(r["method"], r["gates"], r["sparsity"]): r for r in rows}
    for row in rows:
        recall = torch.tensor(row["recall"], dtype=torch.float64)
        assert recall.shape == (8, 4) and row["length"] == 1024 and row["documents"] == 1
        assert row["mean_recall"] == pytest.approx(recall.mean().item(), abs=1e-5)
        worst = row["worst"]
        assert recall[worst["layer"], worst["head"]].item() == pytest.approx(recall.min().item(), abs=1e-5)
        if row["sparsity"] == 0:
            assert row["density"] == 1 and (recall - 1).abs().max() < 1e-4
        else:
            assert 0.4 < row["density"] < 0.6 and recall.max() <= 1.0001
    sparse = lambda method, gates=None: of[method, gates, 0.5]["mean_recall"]
    trained = sparse("seer", "on_cpu/gates")
    assert trained > sparse("seer", "on_gpu/gates") and trained > sparse("untrained")
    assert sparse("oracle") > sparse("random") and trained > sparse("random")
    # The table has the same rows; the picture is one.
    table = result.stdout.splitlines()
    assert "worst head" in table[0] and "on_gpu/gates" in table[1] and table[len(rows)].split()[0] == "1024"
    # Below it: the gates that learnt nothing, by their name.
    assert len(table) == 2 + len(rows) and "worse than streaming" in table[-1] and "on_gpu/gates, 1024 tokens" in table[-1]
    assert [f"{100 * trained:.1f}%" in line for line in table if "on_cpu/gates" in line and "sparsity 0.5" in line] == [True]
    assert png.read_bytes()[1:4] == b"PNG"


def test_eval_recall_defaults_and_errors(seer, text, model, tmp_path):
    quick = ["eval", "recall", "--data", text, "--length", 512, "--min-ratio", 1, *QUICK]
    rows = json.loads(seer(*quick, "--documents", 1, "--json").stdout)["rows"]
    assert [r["method"] for r in rows[::3]] == ["seer", "oracle", "streaming", "random"]
    assert rows[0]["gates"] == "gates" and rows[3]["gates"] is None
    # A model without gates: baselines are measured, gates are asked for.
    bare = json.loads(seer(*quick, "--model", model, "--methods", "streaming", "--json").stdout)["rows"]
    assert len(bare) == 3
    assert "seer distill" in error_of(seer(*quick, "--model", model, ok=False))
    gates = REFERENCE / "gates"
    assert "twice" in error_of(seer(*quick, "--gates", f"{gates},{gates}/", ok=False), 2)
    assert "recall 1" in error_of(seer(*quick, "--methods", "dense,seer", ok=False), 2)
    assert "did you mean seer?" in error_of(seer(*quick, "--methods", "sier", ok=False), 2)
    assert "--documents" in error_of(seer(*quick, "--documents", -1, ok=False), 2)
    assert "shorter length" in error_of(seer(*quick[:5], 65536, ok=False))


def test_distill_and_use_the_gates(seer, text, model, tmp_path):
    gates = tmp_path / "gates"
    seer("distill", "--model", model, "--data", text, "--out", gates, "--steps", 4, "--length", 1024,
         "--sequences", 1, "--block", 32, "--gate-type", "Qmaxavg_Kmaxmin", "--force-double")
    config = json.loads((gates / "config.json").read_text())
    assert config["seerattn_gate_block_size"] == 32
    assert config["seerattn_gate_type"] == "Qmaxavg_Kmaxmin"
    weights = load_file(gates / "attn_gate_weights.safetensors")
    assert "model.layers.0.self_attn.attn_gate.mask_linear_q.weight" in weights
    seer("generate", "--model", model, "--gates", gates, "--prompt-file", text, "--max-new-tokens", 2)
    # Gates of another model.
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = json.loads((other / "config.json").read_text())
    broken = {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in weights.items()}
    save_file(broken, gates / "attn_gate_weights.safetensors")
    message = error_of(seer("generate", "--model", model, "--gates", gates, "--prompt-file", text, ok=False))
    assert "attn_gate_weights.safetensors" in message


def test_run(seer, text, tmp_path):
    out = tmp_path / "run"
    result = seer("run", "--text", text, "--out", out, "--steps", 3, "--length", 1024)
    run = json.loads((out / "run.json").read_text())
    assert {"model", "text", "settings", "rows"} <= run.keys()
    methods = {row["method"] for row in run["rows"]}
    assert {"dense", "seer", "random", "streaming", "untrained"} <= methods
    for row in run["rows"]:
        assert {"method", "sparsity", "density", "perplexity", "attention_ms", "prefill_ms"} <= row.keys()
    assert (out / "heads.png").read_bytes()[1:4] == b"PNG"
    assert "perplexity" in result.stdout


@pytest.mark.parametrize("flags,words", [(["--methods", "dense,best"], "--methods best: want dense"), (["--sparsity", "2"], "want a number, 0 ... 1"),
                                         (["--also", "best:0.5"], "want rule:strength")])
def test_run_refuses_before_it_trains(seer, text, tmp_path, flags, words):
    assert words in error_of(seer("run", "--text", text, "--out", tmp_path / "run", *flags, ok=False), 2)
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_written_are_named_by_their_setting(seer, text, tmp_path):
    """Also those of defaults: run's, of the cache, of bench."""
    for name in ("runs", ".cache", "results"):
        (tmp_path / name).write_text("a file in the way")
    distill = ["distill", "--data", text, "--out", "gates", "--length", 1024, "--steps", 1]
    for words, name in ((["run", "--text", text, "--gates", REFERENCE / "gates"], "out"), (distill, "cache"), (["bench", "block_sparse_attn"], "out")):
        assert f"--{name}: cannot write" in error_of(seer(*words, ok=False, cwd=tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name, content, words", [("run.json", '{"task": "distill"}', "run.json is not of a run of `seer run`"), ("prompt.txt", "mine", "holds prompt.txt, which no run")])
def test_run_leaves_the_files_of_others(seer, text, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    assert words in error_of(seer("run", "--text", text, "--out", tmp_path, ok=False))
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == content


@pytest.mark.parametrize("name, damage, expected", [
    ("no config", lambda f: (f / "config.json").unlink(), "config.json"),
    ("broken config", lambda f: (f / "config.json").write_text("{"), "config.json"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
])
def test_damaged_models(seer, model, tmp_path, name, damage, expected):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder)
    assert expected in error_of(seer("generate", "--model", folder, "--prompt", "x", ok=False))


def test_truncated_weights(seer, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors" in error_of(seer("generate", "--model", folder, "--prompt", "x", ok=False))


def test_weights_that_are_wrong(seer, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for change, expected in [
        (lambda w: w[:-1].contiguous(), name),
        (lambda w: torch.full_like(w, float("nan")), "NaN"),
    ]:
        save_file({**weights, name: change(weights[name])}, folder / "model.safetensors")
        message = error_of(seer("logits", "--model", folder, "--text", "x", ok=False))
        assert expected in message and name in message


def test_unsupported_models(seer, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    for change, expected in [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "mamba"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
        ({"hidden_act": "relu"}, "relu"),
    ]:
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        assert expected in error_of(seer("logits", "--model", folder, "--text", "x", ok=False)).lower()


def test_bad_texts(seer, tmp_path):
    empty, binary, short = (tmp_path / name for name in ("empty.txt", "binary.txt", "short.txt"))
    empty.write_text("")
    binary.write_bytes(b"abc\xff\xfe" * 10)
    short.write_text("too short")
    for path, words in [(empty, "empty"), (binary, "UTF-8"), (short, "tokens"),
                        (tmp_path / "nothing.txt", "nothing.txt")]:
        for verb in (["run", "--text", path, "--out", tmp_path / "out"],
                     ["distill", "--data", path, "--out", tmp_path / "out"],
                     ["eval", "ppl", "--data", path]):
            message = error_of(seer(*verb, ok=False))
            assert words in message, (verb, message)
    message = error_of(seer("generate", "--prompt", "Hi", "--method", "seer", ok=False))
    assert "less than a block" in message and "choose --method auto" in message
    assert "dense attention, as the prompt is less" in seer("generate", "--prompt", "Hi", "--max-new-tokens", 2).stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_kinds_of_text_files(seer, text, tmp_path):
    lines = json.dumps({"text": text.read_text(), "score": float("nan")}) + "\n\n"
    rows = {}
    for name, data in [("A.JSONL", b"\xef\xbb\xbf\r\n" + lines.encode()), ("a.json", json.dumps([text.read_text()]).encode()),
                       ("c.txt.gz", gzip.compress(text.read_bytes()))]:
        (tmp_path / name).write_bytes(data)
        result = seer("eval", "ppl", "--data", tmp_path / name, "--lengths", 64, "--methods", "dense", "--json", *QUICK)
        rows[name] = json.loads(result.stdout)["rows"][0]["perplexity"]
    assert len(set(rows.values())) == 1, rows
    # What is not read is refused in every verb.
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "lines.txt").write_text(lines)
    for verb in (["run", "--text"], ["distill", "--data", tmp_path / "a.json", "--out", tmp_path / "out", "--valid"],
                 ["eval", "ppl", "--data"], ["pretrain", "--out", tmp_path / "out", "--data"]):
        message = error_of(seer(*verb, tmp_path / "b.parquet", ok=False))
        assert "b.parquet is a table" in message and "JSON lines" in message
    assert "is a folder" in error_of(seer(*verb, tmp_path, ok=False))
    for verb in (["run", "--out", tmp_path / "out", "--text"], ["eval", "ppl", "--data"],
                 ["distill", "--cache", tmp_path / "cache", "--out", tmp_path / "out", "--data"]):
        assert "call it .jsonl" in error_of(seer(*verb, tmp_path / "lines.txt", ok=False))
    (tmp_path / "lines.txt").write_text('{"text": "a prompt may be JSON"}')
    seer("generate", "--prompt-file", tmp_path / "lines.txt", "--max-new-tokens", 1, *QUICK)


def test_a_token_that_the_model_does_not_have(seer, text, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    rows = weights["model.embed_tokens.weight"].shape[0] - 200
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = weights[name][:rows].contiguous()
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    ids = json.loads(seer("tokenize", "--model", folder, "--file", text).stdout)
    first = next(i for i in ids if i >= rows)
    named = f"token {first} ({json.dumps(seer('tokenize', '--model', folder, '--ids', first).stdout[:-1])})"
    gates = ["--steps", 1, "--length", 256, "--sequences", 1, "--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    for verb in (["distill", *gates, "--data", text], ["eval", "ppl", "--lengths", 256, "--methods", "dense", "--data", text],
                 ["eval", "recall", "--length", 256, "--methods", "streaming", "--data", text],
                 ["run", "--out", tmp_path / "out", "--text", text],
                 ["generate", "--prompt-file", text], ["logits", "--text", text.read_text()]):
        message = error_of(seer(*verb, "--model", folder, *QUICK, ok=False))
        assert named in message and f"vocabulary of {rows}" in message, message
        assert str(text) in message or verb[0] == "logits"
    # Texts without such a token are as good as ever.
    seer("generate", "--model", folder, "--prompt", "a", "--max-new-tokens", 1, *QUICK)


def test_broken_documents_are_skipped_in_training(seer, text, tmp_path):
    import zstandard
    parts = [text.read_text()[i:i + 8_000] for i in range(0, 32_000, 8_000)]
    good = [json.dumps({"text": part}).encode() for part in parts]
    broken = [b'{"text": "\xff"}', *good[:2], b"{", good[2], b'{"body": "a"}', good[3], b'{"text": ""}']
    clean, mixed = tmp_path / "clean.jsonl", tmp_path / "mixed.jsonl.zst"
    clean.write_bytes(b"\n".join(good))
    mixed.write_bytes(zstandard.compress(b"\n".join(broken)))
    line = (f"{mixed}: 4 of 8 documents are skipped: line 1 is not UTF-8 (byte 10), line 4 is not valid JSON "
            f"(byte {sum(len(b) + 1 for b in broken[:3]) + 1}), line 6 is not a JSON object with a string \"text\" "
            f"(byte {sum(len(b) + 1 for b in broken[:5])}), ...")

    distill = ["--cache", tmp_path / "cache", "--steps", 2, "--length", 512, "--sequences", 1, *QUICK]
    pretrain = ["--cache", tmp_path / "cache", "--steps", 2, "--lengths", 256, "--tokens-per-step", 512, "--layers", 1,
                "--hidden", 32, "--heads", 1, "--kv-heads", 1, "--intermediate", 32, "--device", "cpu", *QUICK]
    for verb, settings, result in [("distill", distill, "attn_gate_weights.safetensors"),
                                   ("pretrain", pretrain, "model.safetensors")]:
        want = seer(verb, "--data", clean, "--out", tmp_path / verb / "clean", *settings)
        assert "skipped" not in want.stdout + want.stderr
        for out in ("first", "from the cache"):
            run = seer(verb, "--data", mixed, "--out", tmp_path / verb / out, *settings)
            assert run.stderr.splitlines().count(line) == 1 and run.stderr.count("skipped") == 1, run.stderr
            assert ", 4 documents skipped\n" in run.stdout
            assert ((tmp_path / verb / out / result).read_bytes()
                    == (tmp_path / verb / "clean" / result).read_bytes())
            data = json.loads((tmp_path / verb / out / "run.json").read_text())["settings"]["data"]
            assert data[0]["skipped_documents"] == 4

    # A quantity that is measured does not leave anything out; nor is a damaged file one of broken documents.
    assert "line 1 is not UTF-8" in error_of(seer("eval", "ppl", "--data", mixed, "--lengths", 512, ok=False))
    for name, data, words in [("cut.jsonl.zst", mixed.read_bytes()[:-20], "cut off"),
                              ("most.jsonl", b"\n".join([*broken, b"{"]), "5 of 9 documents, more than half")]:
        (tmp_path / name).write_bytes(data)
        message = error_of(seer("distill", "--data", tmp_path / name, "--out", tmp_path / "none", *distill, ok=False))
        assert name in message and words in message


def test_full_disk(seer, text, tmp_path):
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        import subprocess
        from conftest import BUILD
        result = subprocess.run([BUILD / "seer", "tokenize", "--text", "x"], stdout=full,
                                stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "standard output" in result.stderr


def test_converted_gates_are_the_same(seer, build, text, model, tmp_path):
    import subprocess
    import sys
    published, out = tmp_path / "published", tmp_path / "converted"
    published.mkdir()
    gates = REFERENCE / "gates"
    weights = {k: v.to(torch.bfloat16) for k, v in load_file(gates / "attn_gate_weights.safetensors").items()}
    torch.save(weights, published / "attn_gate_weights.pth")
    shutil.copy(gates / "config.json", published)
    # Unconverted, the error names the command.
    message = error_of(seer("generate", "--model", model, "--gates", published, "--prompt-file", text, ok=False))
    assert "convert_gates.py" in message
    subprocess.run([sys.executable, ROOT / "tools" / "convert_gates.py", published, out], check=True)
    converted = load_file(out / "attn_gate_weights.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[k], weights[k]) for k in weights)
    seer("generate", "--model", model, "--gates", out, "--prompt-file", text, "--max-new-tokens", 2)


def test_the_fingerprint_of_a_model_does_not_depend_on_how_its_weights_are_stored(seer, text, model, tmp_path):
    import subprocess
    import sys
    gates = tmp_path / "gates"
    shutil.copytree(REFERENCE / "gates", gates)

    def fingerprint(folder):
        command = [sys.executable, ROOT / "tools" / "convert_gates.py", gates, "--model", folder]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]

    weights = load_file(model / "model.safetensors")
    save_file({name.removeprefix("model."): weight for name, weight in weights.items()}, tmp_path / "model.safetensors")
    assert fingerprint(tmp_path) == fingerprint(model)
    seer("generate", "--model", model, "--gates", gates, "--prompt-file", text, "--max-new-tokens", 2)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import os
    import subprocess
    import sys

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    (tmp_path / "config.json").write_text("{}")
    torch.save({"a": Evil()}, tmp_path / "attn_gate_weights.pth")
    result = subprocess.run([sys.executable, ROOT / "tools" / "convert_gates.py", tmp_path],
                            capture_output=True, text=True)
    assert result.returncode == 1 and "attn_gate_weights.pth" in result.stderr
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("flags", [[], ["--avx2"]])
def test_bench_writes_its_rows(seer, tmp_path, flags):
    seer("bench", "block_sparse_attn", "--lengths", "512", "--head-dims", "64", "--heads", "2",
         "--kv-heads", "1", "--densities", "0.5", "--seconds", "0", "--runs", "1", "--out", tmp_path,
         *flags)
    (path,) = tmp_path.glob("*/block_sparse_attn.json")
    record = json.loads(path.read_text())
    assert path.parent.name.endswith("-avx2") or not flags
    assert record["avx2_at_most"] == bool(flags) and "seer bench" in record["command"]
    assert {r["implementation"] for r in record["rows"]} == {"torch sdpa", "seer"}
    for row in record["rows"]:
        for key in ("heads_q", "heads_kv", "head_dim", "len_q", "len_k", "density", "lists", "dtype",
                    "median_ms", "min_ms", "max_ms", "kept_tflops"):
            assert key in row, key


def test_bench_prefill_shows_what_methods_take_to_choose(seer, tmp_path):
    methods = ["seer", "pooled", "quest", "xattention", "minference_vs", "flexprefill", "duo"]
    seer("bench", "prefill", "--device", "cpu", "--lengths", 1024, "--methods", ",".join(methods), "--densities", 0.5, "--runs", 1,
         "--seconds", 0, "--out", tmp_path)
    (path,) = tmp_path.glob("*/prefill.json")
    dense, *rows = json.loads(path.read_text())["rows"]
    assert dense["implementation"] == "dense" and [r["implementation"] for r in rows] == methods
    assert len({r["density"] for r in rows}) == 1 and all(r["gate_ms"] > 0 and r["attention_ms"] > 0 for r in rows)


def test_bench_wrong_usage(seer, tmp_path):
    assert "operation softmax: want block_sparse_attn" in error_of(seer("bench", "softmax", "--out", tmp_path, ok=False), 2)
    for flag, value in (("--lists", "gates"), ("--dtypes", "f64")):
        found = error_of(seer("bench", "attn_gate", flag, value, "--out", tmp_path, ok=False), 2)
        assert f"{flag} {value}: want" in found
    assert not list(tmp_path.iterdir())


def test_bench_appends(seer, tmp_path):
    def bench(length, *flags):
        seer("bench", "block_sparse_attn", "--lengths", length, "--head-dims", 64, "--heads", 2, "--kv-heads", 1,
             "--densities", 0.5, "--seconds", 0, "--runs", 1, "--out", tmp_path, *flags)
        (path,) = tmp_path.glob("*/block_sparse_attn.json")
        return path, json.loads(path.read_text())

    bench(256)
    _, first = bench(128)  # in place of what was there
    _, second = bench(256, "--append")
    path, third = bench(128, "--append")
    lengths = lambda record: [row["len_q"] for row in record["rows"]]
    of_one = len(first["rows"])
    assert lengths(first) == [128] * of_one and lengths(second) == [128] * of_one + [256] * of_one
    assert lengths(third) == [256] * of_one + [128] * of_one
    assert third["command"].count("seer bench") == 3 and str(tmp_path) not in third["command"]
    path.write_text(json.dumps({**third, "versions": {"torch": "1.0"}}))
    found = error_of(seer("bench", "block_sparse_attn", "--lengths", 128, "--head-dims", 64, "--heads", 2, "--kv-heads", 1,
                          "--seconds", 0, "--runs", 1, "--append", "--out", tmp_path, ok=False))
    assert "rows of other versions" in found and "choose another --out" in found


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])
def test_threads_are_recorded_where_they_shape_times(seer, tmp_path, device):
    for threads in (1, 2):
        seer("bench", "decode_attn", "--device", device, "--threads", threads, "--lengths", 128, "--heads", 2, "--kv-heads", 1, "--head-dims", 64,
             "--seconds", 0, "--runs", 1, "--out", tmp_path, *(["--append"] if threads == 2 and device == "cuda" else []))
    made = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/decode_attn.json"))]
    assert [record.get("threads") for record in made] == ([1, 2] if device == "cpu" else [None])
    assert all(("bf16_dot_product" in record) == (device == "cpu") for record in made)


def test_kernels_lists_every_operation(seer):
    table = seer("kernels").stdout
    for op in ("block_sparse_attn", "block_sparse_attn_backward", "pooled_attn", "attn_gate_pool", "attn_gate_project",
               "attn_gate_score", "gate_loss", "block_select"):
        assert re.search(rf"{op} +cpu +cpu +yes", table)
    rows = json.loads(seer("kernels", "--head-dim", "72", "--json").stdout)
    assert {r["implementation"] for r in rows if r["operation"] == "block_sparse_attn"} == {
        "sm90", "sm80", "cpu", "reference"}
    assert "want f32, f16 or bf16" in error_of(seer("kernels", "--dtype", "int8", ok=False), 2)
