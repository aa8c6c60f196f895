"""`seer run`, `seer eval` and `seer generate`: what methods need, what is refused first, what is left when something goes wrong."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import BUILD, usual_signals
from test_cli import QUICK, REFERENCE, error_of, model, text  # noqa: F401 (fixtures)

SHORT = ["--min-ratio", 1, "--documents", 1, *QUICK]


@pytest.fixture(scope="session")
def gates16(tmp_path_factory, seer, text, model):
    """Gates of blocks of 16 tokens."""
    folder = tmp_path_factory.mktemp("gates") / "of 16"
    seer("distill", "--model", model, "--data", text, "--out", folder, "--steps", 1, "--length", 512, "--sequences", 1,
         "--block", 16, *QUICK)
    return folder


def rows_of(result):
    return json.loads(result.stdout)["rows"]


def test_methods_without_gates_need_none(seer, text, model):
    quick = ["eval", "ppl", "--model", model, "--data", text, "--lengths", 512, *SHORT, "--json"]
    dense = [*quick, "--methods", "dense"]
    assert [r["method"] for r in rows_of(seer(*dense))] == ["dense"]
    for flag, value in (("--sparsity", 0.5), ("--gates", model), ("--block", 32)):
        assert f"{flag} means nothing where --methods names dense attention alone" in error_of(seer(*dense, flag, value, ok=False), 2)
    quick += ["--sparsity", 0.5]
    names = ["dense", "streaming", "random", "oracle", "untrained", "pooled", "quest", "minference_vs", "flexprefill", "xattention", "duo"]
    rows = rows_of(seer(*quick, "--methods", ",".join(names)))
    assert [r["method"] for r in rows] == names
    assert {r.get("block") for r in rows} == {None, 64}
    assert len({r["density"] for r in rows[1:]}) == 1
    assert rows_of(seer(*quick, "--methods", "streaming", "--block", 16))[0]["block"] == 16
    own = rows_of(seer(*quick, "--methods", "flexprefill,xattention", "--also", "top_p:0.99"))[1::2]
    assert [r["rule"] for r in own] == ["top_p", "top_p"] and own[0]["density"] != own[1]["density"]
    assert "top_p" in error_of(seer(*quick, "--methods", "quest", "--also", "top_p:0.9", ok=False), 2)


def test_gates_of_any_block_work_in_every_verb(seer, text, model, gates16, tmp_path):
    base = ["--model", model, "--gates", gates16]
    rows = rows_of(seer("eval", "ppl", *base, "--data", text, "--lengths", 512, "--sparsity", 0.5, "--methods",
                        "dense,seer,streaming,untrained,oracle,random", *SHORT, "--json"))
    assert {r.get("block") for r in rows} == {None, 16}
    rows = rows_of(seer("eval", "recall", *base, "--data", text, "--length", 512, *SHORT, "--json"))
    assert {r["block"] for r in rows} == {16}
    assert "density" in seer("generate", *base, "--prompt-file", text, "--raw", "--max-new-tokens", 2).stderr
    out = tmp_path / "run"
    seer("run", "--model", model, "--text", text, "--out", out, "--length", 1024, "--windows", 1, "--steps", 2, "--block", 16, *QUICK)
    assert {r.get("block") for r in json.loads((out / "run.json").read_text())["rows"]} == {None, 16}
    # The block of gates that are given, not the default of a flag.
    seer("run", *base, "--text", text, "--out", tmp_path / "with", "--length", 1024, "--windows", 1, "--methods", "dense,seer")
    assert {r.get("block") for r in json.loads((tmp_path / "with" / "run.json").read_text())["rows"]} == {None, 16}


def test_gates_with_lookup_heads_work_in_every_verb(seer, text, gates_alone, tmp_path):
    """Whole vectors in place of learned projections: their scores are nearly the true map's."""
    gates = shutil.copytree(gates_alone, tmp_path / "gates")
    config, weights = json.loads((gates / "config.json").read_text()), load_file(gates / "attn_gate_weights.safetensors")
    heads = {"0": [0], "2": [1, 2], **{str(layer): [0, 1, 2, 3] for layer in range(3, 8)}}
    for layer, own in heads.items():
        for letter in "qk":
            weights[f"model.layers.{layer}.self_attn.attn_gate.lookup_{letter}.weight"] = torch.eye(64).repeat(len(own), 1, 1)
    save_file(weights, gates / "attn_gate_weights.safetensors")
    (gates / "config.json").write_text(json.dumps({**config, "seer_lookup_rank": 64, "seer_lookup_heads": heads}))

    recall = ["eval", "recall", "--data", text, "--length", 4096, "--methods", "seer,gate,oracle", "--sparsity", 0.8, *SHORT, "--json"]
    published, own = ({r["method"]: torch.tensor(r["recall"]) for r in rows_of(seer(*recall, "--gates", folder))} for folder in (gates_alone, gates))
    assert torch.equal(own["oracle"], published["oracle"])
    assert torch.equal(own["gate"], published["seer"]), "gates alone, whatever else lies in their folder"
    assert torch.equal(own["seer"][1], published["seer"][1]), "a layer without lookup heads"
    far, near = ((found["oracle"] - found["seer"])[3:].abs() for found in (published, own))
    assert near.mean() < 0.3 * far.mean() and near.max() < 0.02, (far, near)
    ppl = ["eval", "ppl", "--data", text, "--lengths", 1024, "--methods", "dense,seer", *SHORT, "--json", "--gates", gates]
    dense, exact = rows_of(seer(*ppl, "--sparsity", 0))
    assert exact["perplexity"] == pytest.approx(dense["perplexity"], rel=5e-3)
    assert rows_of(seer(*ppl, "--sparsity", 0.8))[1]["perplexity"] != exact["perplexity"]
    generate = ["generate", "--gates", gates, "--prompt-file", text, "--raw", "--max-new-tokens", 2]
    densities = [re.search(r"density [\d.]+", seer(*generate, *chunk).stderr)[0] for chunk in ((), ("--chunk", 256))]
    assert densities[0] == densities[1]
    seer("run", "--gates", gates, "--text", text, "--out", tmp_path / "run", "--length", 1024, "--windows", 1, "--methods", "dense,seer,untrained")

    (gates / "config.json").write_text(json.dumps({**config, "seer_lookup_rank": 64, "seer_lookup_heads": {"1": [4]}}))
    found = error_of(seer(*ppl, ok=False))
    assert str(gates / "config.json") in found and "head 4" in found and "4 heads" in found


def test_wrong_combinations_are_refused_before_a_model_is_loaded(seer, text, model, gates16, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"not read")
    ppl = ["eval", "ppl", "--model", broken, "--data", text, "--lengths", 512, *SHORT]
    for verb in (ppl, ["eval", "recall", "--model", broken, "--data", text, "--length", 512, *SHORT],
                 ["run", "--model", broken, "--text", text, "--out", tmp_path / "out"]):
        found = error_of(seer(*verb, "--methods", "seer,streaming", "--also", "top_p:0.9", ok=False), 2)
        assert "top_p" in found and "streaming" in found and "nz_ratio" in found
    assert "seer distill --model" in error_of(seer(*ppl, "--methods", "dense,seer", ok=False))
    assert "blocks of 16" in error_of(seer(*ppl, "--gates", gates16, "--block", 32, "--methods", "seer", ok=False), 2)
    assert "shorter length" in error_of(seer(*ppl[:-len(SHORT)], "--min-ratio", 50, "--methods", "dense", ok=False))
    assert "multiple of the gates' block of 16" in error_of(
        seer("generate", "--model", broken, "--gates", gates16, "--prompt-file", text, "--raw", "--chunk", 40, ok=False), 2)
    both = ["--gates", f"{gates16},{REFERENCE / 'gates'}", "--block", 16]
    assert "blocks of 64" in error_of(seer("eval", "recall", "--model", broken, "--data", text, "--length", 512, *both, *SHORT, ok=False), 2)
    out = tmp_path / "out"
    assert "one block of 64" in error_of(seer("distill", "--model", broken, "--data", text, "--out", out, "--length", 8, ok=False), 2)
    given = ["run", "--model", broken, "--text", text, "--out", out, "--gates", gates16, "--block", 16]
    assert "--block is of gates that are distilled, and --gates" in error_of(seer(*given, ok=False), 2)
    # Benchmarks name no folder of gates.
    bench = error_of(seer("bench", "prefill", "--model", broken, "--lengths", 64, "--out=", ok=False))
    assert "there are no gates in" in bench and "seer distill --model" in bench and "--gates" not in bench
    assert not out.exists()
    # What is right until then fails for the weights.
    assert "model.safetensors" in error_of(seer(*ppl, "--methods", "dense", ok=False))


def test_methods_of_a_table_have_one_density(seer, text):
    result = seer("eval", "ppl", "--data", text, "--lengths", "1024,2048", "--methods", "seer,oracle,streaming,random,untrained", *SHORT)
    table = [line.split() for line in result.stdout.splitlines() if re.match(r"\s+\d+  \w", line)]
    assert len(table) == 2 * 5 * 3
    for length in ("1024", "2048"):
        for sparsity in ("0.5", "0.7", "0.9"):
            densities = {row[4] for row in table if row[0] == length and row[3] == sparsity}
            assert len(densities) == 1, (length, sparsity, densities)
    assert "1024 tokens are 16 blocks of 64: sparsity 0.9 cannot be met, density is 0.228" in result.stdout
    assert "1024 tokens are 16 blocks of 64: sparsity 0.7 and sparsity 0.9 are the same choice" in result.stdout
    assert "2048 tokens are 32 blocks of 64: sparsity 0.7" not in result.stdout


def test_densities_that_differ_are_named(seer, text):
    result = seer("eval", "ppl", "--data", text, "--lengths", 1024, "--methods", "seer,oracle", "--rule", "threshold", "--strength", 0.02, *SHORT)
    assert re.search(r"1024 tokens, threshold 0.02: densities differ, from 0\.\d+ \(\w+\) to 0\.\d+", result.stdout)


def test_gates_that_are_worse_than_streaming_are_called_that(seer, text, model, tmp_path):
    gates = tmp_path / "gates"
    shutil.copytree(REFERENCE / "gates", gates)
    weights = load_file(gates / "attn_gate_weights.safetensors")
    save_file({k: torch.randn_like(v) * 0.02 for k, v in weights.items()}, gates / "attn_gate_weights.safetensors")
    base = ["--data", text, "--gates", gates, "--model", model, "--methods", "seer,streaming", "--sparsity", 0.7, *SHORT]
    for verb in (["eval", "ppl", "--lengths", 2048], ["eval", "recall", "--length", 2048]):
        assert "seer is worse than streaming" in seer(*verb, *base).stdout


def test_fewer_documents_than_asked_for_are_named(seer, text):
    found = seer("eval", "ppl", "--data", text, "--lengths", 512, "--methods", "dense", "--min-ratio", 1, "--documents", 5, *QUICK)
    assert "1 of the 5 documents asked for" in found.stderr


def test_lengths_beyond_the_context_warn_once(seer, text, model, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(model, short)
    config = json.loads((short / "config.json").read_text())
    config.pop("rope_scaling", None)
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    ppl = ["eval", "ppl", "--data", text, "--methods", "dense", *SHORT]
    assert seer(*ppl, "--model", short, "--lengths", "512,1024").stderr.count("more than the 256 that this model was made for") == 1
    assert "made for" not in seer(*ppl, "--model", model, "--lengths", 512).stderr
    generate = ["generate", "--prompt-file", text, "--raw", "--max-new-tokens", 1, *QUICK]
    assert "more than the 256" in seer(*generate, "--model", short).stderr
    run = ["run", "--model", short, "--text", text, "--out", tmp_path / "run", "--length", 512, "--windows", 1, "--steps", 1, "--methods", "seer", *QUICK]
    assert seer(*run).stderr.count("made for") == 1


def test_what_will_be_done_is_said_first(seer, text):
    said = seer("eval", "ppl", "--data", text, "--lengths", "512,1024", "--methods", "dense,seer", *SHORT).stderr
    assert "8 rows, 8 passes over 6.14 k tokens; memory: about" in said


def test_logits_that_are_no_numbers_are_an_error(seer, text, model, tmp_path):
    """A value that overflows: finite weights, and no finite logits."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], 3e38)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 100
    save_file(weights, folder / "model.safetensors")
    out = tmp_path / "rows.json"
    result = seer("eval", "ppl", "--model", folder, "--data", text, "--lengths", 512, "--methods", "dense,streaming", "--sparsity", 0.5,
                  "--dtype", "f32", "--json", out, *SHORT, ok=False)
    assert "perplexity of dense, 512 tokens is not a finite number on 1 of 1 document (and of 1 other row)" in error_of(result)
    rows = json.loads(out.read_text())["rows"]
    assert [r["perplexity"] for r in rows] == [None, None] and rows[0]["not_finite"] == 1
    assert len(result.stdout.splitlines()) >= 3


def test_run_ends_with_a_command_that_can_be_pasted(seer, text, model, tmp_path):
    strange = tmp_path / "it's a model"
    shutil.copytree(model, strange)
    result = seer("run", "--model", strange, "--text", text, "--out", "runs/my run", "--steps", 1, "--length", 512, "--windows", 1,
                  "--methods", "dense,seer", "--sparsity", 0.5, *QUICK, cwd=tmp_path)
    out = tmp_path / "runs" / "my run"
    assert {f.name for f in out.iterdir()} == {"run.json", "heads.png", "attention.json", "report.html", "prompt.txt", "gates"}
    command = re.search(r"^next +(.*)$", result.stdout, flags=re.M)[1]
    pasted = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert pasted.returncode == 0, pasted.stderr
    assert "density" in pasted.stderr
    # The same command again goes on from what is there; other settings are refused, --restart begins anew.
    again = ["run", "--model", strange, "--text", text, "--out", "runs/my run", "--length", 512, "--windows", 1, "--methods", "dense,seer",
             "--sparsity", 0.5, *QUICK]
    assert "settings" in error_of(seer(*again, "--steps", 2, ok=False, cwd=tmp_path))
    seer(*again, "--steps", 2, "--restart", cwd=tmp_path)


def test_run_keeps_its_results_when_the_picture_fails(seer, text, tmp_path):
    out = tmp_path / os.fsdecode(b"caf\xe9")  # no UTF-8
    (out / "heads.png").mkdir(parents=True)
    (out / "heads.png" / "in the way").touch()
    (out / "run.json").write_text('{"operation": "run"}')  # its own folder
    result = seer("run", "--text", text, "--out", out, "--gates", REFERENCE / "gates", "--length", 512, "--windows", 1, "--methods", "dense,seer",
                  "--sparsity", 0.5, *QUICK, ok=False, errors="backslashreplace")
    assert result.returncode == 1
    assert "not written: heads.png: " in result.stderr and "not everything was written: heads.png" in result.stderr
    assert len(json.loads((out / "run.json").read_text())["rows"]) == 2
    assert (out / "prompt.txt").exists() and len(re.findall(r"^ +512 ", result.stdout, flags=re.M)) == 2


def test_run_says_that_its_folder_was_deleted_and_saves_what_it_has(text, tmp_path):
    out = tmp_path / "out"
    command = [BUILD / "seer", "run", "--text", text, "--out", out, "--length", 1024, "--steps", 1, "--sparsity", 0.5, *QUICK]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:  # until the comparison has begun
        if line.startswith("length"):
            break
    shutil.rmtree(out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "deleted or moved" in errors.splitlines()[-1]
    assert {f.name for f in out.iterdir()} == {"run.json", "heads.png", "attention.json", "report.html", "prompt.txt", "gates"}
    assert (out / "gates" / "config.json").exists() and len(load_file(out / "gates" / "attn_gate_weights.safetensors")) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_keeps_its_rows(text, tmp_path, number):
    out = tmp_path / "rows.json"
    command = [BUILD / "seer", "eval", "ppl", "--data", text, "--lengths", "512,4096", "--min-ratio", "1", "--methods", "dense,streaming,random",
               "--json", out, *map(str, QUICK)]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=usual_signals)
    lines = [process.stdout.readline() for _ in range(2)]  # the head and a row
    process.send_signal(number)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "stopped" in errors.splitlines()[-1]
    saved = json.loads(out.read_text())
    table = [line for line in lines + rest.splitlines() if re.match(r" +\d+  (dense|streaming|random)", line)]
    assert not saved["complete"] and 1 <= len(saved["rows"]) == len(table)


def test_a_comparison_that_ends_before_its_first_row_replaces_nothing(text, tmp_path):
    out = tmp_path / "rows.json"
    out.write_text("before")
    command = [BUILD / "seer", "eval", "ppl", "--data", text, "--lengths", 8192, "--min-ratio", 1, "--methods", "dense", "--json", out, *QUICK]
    terminal, its_end = os.openpty()  # where a person is told at once
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=its_end, text=True, preexec_fn=usual_signals)
    process.stdout.readline()  # the head
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    said = os.read(terminal, 1 << 16).decode()
    os.close(its_end), os.close(terminal)
    assert process.returncode == 130 and rest == "", (rest, said)
    assert re.search(r"stopping where no work is lost; once more stops at once.*seer: stopped: ", said, flags=re.S), said
    assert out.read_text() == "before"


def test_generate_says_why_it_is_dense_and_refuses_too_long_prompts(seer, text, model, tmp_path):
    quick = ["generate", "--model", model, "--raw", "--max-new-tokens", 1, *QUICK]
    said = seer(*quick, "--prompt-file", text).stderr
    assert "dense attention, as there are no gates in" in said and "seer distill --model" in said
    assert "reading" in said  # progress of a long prompt
    long = tmp_path / "long.txt"
    long.write_text("word " * 300_000)
    found = error_of(seer(*quick, "--prompt-file", long, ok=False))
    assert f"more than {max(8 * json.loads((model / 'config.json').read_text())['max_position_embeddings'], 131072)} (8 times the model's context" in found
