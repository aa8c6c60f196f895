"""seer finetune from end to end: a tiny model stretched to four times its length in the three ways, killed and
resumed, by two processes, opened by transformers, and what is refused."""
import json
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import BUILD
from test_cli import error_of
from test_ranks import TORCHRUN, assert_same_metrics, environment, free_port, start, wait_for_checkpoint
from test_training_runs import begin

LENGTH = 512  # four times that of the base
LOGITS = """
import json, sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
folder, ids, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
with torch.no_grad():
    save_file({"logits": model(torch.tensor([json.load(open(ids))])).logits[0]}, out)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def text(folder):
    path = folder / "text.txt"
    path.write_bytes((BUILD / "default_text.txt").read_bytes()[:80_000])
    return path


@pytest.fixture(scope="module")
def base(seer, folder, text):
    """Of 128 tokens, with its gates."""
    out = folder / "base"
    seer("pretrain", "--data", text, "--out", out, "--steps", 20, "--hidden", 64, "--layers", 2, "--heads", 4,
         "--kv-heads", 2, "--head-dim", 16, "--intermediate", 96, "--lengths", LENGTH // 4,
         "--tokens-per-step", 1024, "--threads", 1)
    seer("distill", "--model", out, "--data", text, "--out", out / "gates", "--steps", 5, "--length", LENGTH // 4,
         "--sequences", 2, "--block", 16, "--dtype", "f32", "--threads", 1)
    (out / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    return out


def arguments(base, text, out, **more):
    settings = {"model": base, "data": text, "out": out, "yarn-factor": 4, "length": LENGTH, "sequences": 4, "steps": 6,
                "learning-rate": 1e-3, "valid": text, "valid-sequences": 1, "threads": 1, **more}
    return ["finetune", *(str(x) for key, value in settings.items() for x in (f"--{key}", value))]


def sparse(base, **more):
    return {"gates": base / "gates", "density": 0.3, **more}


@pytest.fixture(scope="module")
def joint(seer, folder, base, text):
    out = folder / "joint"
    result = seer(*arguments(base, text, out, **sparse(base)))
    assert "6 steps" in result.stdout and str(out) in result.stdout
    return out


@pytest.fixture(scope="module")
def dense(seer, folder, base, text):
    out = folder / "dense"
    seer(*arguments(base, text, out, attention="dense"))
    return out


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def killed(seer, folder, base, text):
    """The joint run, killed after a checkpoint and resumed."""
    out = folder / "killed"
    process = begin([str(BUILD / "seer"), *arguments(base, text, out, **sparse(base, **{"save-every": 1}))])
    while not any((out / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.wait()
    result = seer(*arguments(base, text, out, **sparse(base, **{"save-every": 1})))
    assert "going on from step" in result.stderr or "6 steps" in result.stdout
    return out


@pytest.fixture(scope="module")
def two(folder, base, text):
    """The joint run by two processes."""
    out = folder / "two"
    subprocess.run([TORCHRUN, "--no-python", "--nproc_per_node", "2", BUILD / "seer",
                    *arguments(base, text, out, **sparse(base))], env=environment(), check=True, capture_output=True,
                   timeout=300)
    return out


@pytest.fixture(scope="module")
def after(seer, folder, text, dense):
    """Gates distilled after YaRN."""
    out = folder / "after"
    seer("distill", "--model", dense, "--data", text, "--out", out, "--steps", 5, "--length", LENGTH, "--sequences", 2,
         "--block", 16, "--dtype", "f32", "--threads", 1)
    return out


def test_training_goes_on_as_it_should(seer, text, dense, joint):
    lines = [line for line in metrics(joint) if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] and lines[0]["gate_loss"] > 0
    assert lines[0]["lr_gates"] == pytest.approx(1.5 * lines[0]["lr_model"])
    assert "gate_loss" not in metrics(dense)[0]
    # The gates lie where the model's own are looked for.
    seer("generate", "--model", joint, "--prompt-file", text, "--max-new-tokens", 2, "--dtype", "f32")


@pytest.fixture(scope="module")
def documents(folder, text):
    """Three of them are long enough."""
    path = folder / "documents.jsonl"
    whole = text.read_text()
    path.write_text("".join(json.dumps({"text": whole[i:i + size]}) + "\n"
                            for i, size in ((0, 20_000), (20_000, 300), (30_000, 20_000), (50_000, 20_000))))
    return path


def columns(dense, after, joint, documents, *more):
    """The command that compares the three ways; `joint`: a folder, or several."""
    joint = ",".join(map(str, joint)) if isinstance(joint, list) else joint
    return ("eval", "ppl", "--model", dense, "--gates", after, "--joint", joint, "--data", documents, "--lengths", LENGTH,
            "--documents", 0, "--min-ratio", 2, "--dtype", "f32", "--threads", 1, *more)


def test_three_ways(seer, folder, dense, after, joint, killed, two, documents):
    """Dense YaRN, gates distilled after it, both trained together, at once, with a pause and by two processes: one
    table of all."""
    out = folder / "columns.json"
    result = seer(*columns(dense, after, [joint, killed, two], documents, "--methods", "dense,seer,streaming", "--sparsity", "0.5,0.8", "--json", out))
    made = json.loads(out.read_text())
    rows = {(row["model"], row["method"], row["sparsity"]): row for row in made["rows"]}
    assert made["complete"] and [*rows] == [
        ("dense", "dense", 0), *(("dense", method, s) for method in ("seer", "streaming") for s in (.5, .8)),
        *((model, method, s) for model in ("joint", "killed", "two") for method, s in (("dense", 0), ("seer", .5), ("seer", .8)))]
    base = rows["dense", "dense", 0]
    for (model, method, sparsity), row in rows.items():
        assert row["documents"] == len(row["nll"]) == 3 and row["length"] == LENGTH
        nll = torch.tensor(row["nll"], dtype=torch.float64)
        assert row["perplexity"] == pytest.approx(nll.mean().exp().item(), rel=1e-5)
        difference = nll - torch.tensor(base["nll"], dtype=torch.float64)
        assert row["vs_dense"] == pytest.approx(difference.mean().exp().item(), rel=1e-5)
        assert row["vs_dense_error"] == pytest.approx(row["vs_dense"] * difference.std().item() / 3**.5, abs=2e-6)
        assert row.get("trained_sparsity") == (None if model == "dense" else .7)
        if method == "dense":
            assert row["density"] == 1 and "density_by_layer" not in row
            continue
        # The rule keeps as many blocks of a row in every layer, of all methods and models.
        assert row["density"] == rows["dense", "seer", sparsity]["density"]
        assert row["density_by_layer"] == pytest.approx([row["density"]] * 2, abs=1e-6)
        gain = rows["dense", "seer", sparsity]["vs_dense"] - 1
        if model != "dense" and gain > 1e-4:
            assert row["excess"] == pytest.approx((row["vs_dense"] - 1) / gain, abs=0.02)
        elif model == "dense" or gain <= 0:
            assert "excess" not in row
    assert rows["joint", "seer", .8]["density"] < rows["joint", "seer", .5]["density"]
    for _, method, sparsity in [key for key in rows if key[0] == "joint"]:
        assert rows["killed", method, sparsity]["nll"] == rows["joint", method, sparsity]["nll"]
        assert rows["two", method, sparsity]["nll"] == pytest.approx(rows["joint", method, sparsity]["nll"], abs=5e-3)
    table = [line.split() for line in result.stdout.splitlines()]
    assert table[0][:5] == ["length", "model", "trained", "at", "method"] and len(table) >= 1 + len(rows)
    assert table[7][:6] == [str(LENGTH), "joint", "sparsity", "0.7", "seer", "sparsity"]


def test_density_differs_by_layer_where_scores_decide(seer, dense, after, joint, documents):
    result = seer(*columns(dense, after, joint, documents, "--rule", "threshold", "--strength", 0.035, "--json"))
    row = json.loads(result.stdout)["rows"][-1]
    assert len(set(row["density_by_layer"])) == 2
    assert sum(row["density_by_layer"]) / 2 == pytest.approx(row["density"], abs=1e-5)


def test_columns_that_do_not_compare(seer, folder, dense, after, joint, documents):
    def wrong(code, *more, model=joint):
        return error_of(seer(*columns(dense, after, model, documents, *more), ok=False), code)

    assert "lacks dense" in wrong(2, "--methods", "seer")
    assert "twice" in wrong(2, model=dense)
    assert "there are no gates in" in wrong(1, model=shutil.copytree(dense, folder / "no gates"))
    other = shutil.copytree(joint, folder / "other tokens")
    (other / "tokenizer.json").write_text((joint / "tokenizer.json").read_text() + " ")
    assert "has another tokenizer" in wrong(1, model=other)
    assert "is a folder of gates" in wrong(2, model=after)
    # Before anything is measured.
    mixed = shutil.copytree(joint, folder / "mixed")
    shutil.copy(after / "config.json", mixed / "gates")
    result = seer(*columns(dense, after, mixed, documents), ok=False)
    assert "were made for another model" in error_of(result) and not result.stdout


def test_transformers_opens_it(seer, folder, joint, older_transformers):
    config = json.loads((joint / "config.json").read_text())
    assert config["max_position_embeddings"] == LENGTH and config["rope_scaling"] == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": LENGTH // 4}
    assert json.loads((joint / "generation_config.json").read_text()) == {"eos_token_id": [1, 5]}
    ids, ours = folder / "ids.json", folder / "ours.safetensors"
    ids.write_text(json.dumps(torch.randint(0, 8192, (300,), generator=torch.manual_seed(1)).tolist()))
    seer("logits", "--model", joint, "--ids", ids, "--out", ours, "--dtype", "f32", "--device", "cpu")
    for env in (environment(), older_transformers):
        theirs = folder / "theirs.safetensors"
        subprocess.run([sys.executable, "-c", LOGITS, joint, ids, theirs], check=True, env=env, capture_output=True)
        torch.testing.assert_close(load_file(ours)["logits"], load_file(theirs)["logits"], rtol=0, atol=1e-4)


def test_killed_and_resumed(seer, base, text, joint, killed):
    for name in ("model.safetensors", "gates/attn_gate_weights.safetensors"):
        assert (killed / name).read_bytes() == (joint / name).read_bytes(), name
    # Other settings are another run.
    assert "other settings" in error_of(seer(*arguments(base, text, killed, **sparse(base, density=0.2)), ok=False))


def test_two_processes_give_what_one_gives(joint, two):
    assert_same_metrics(joint, two)
    alone, shared = (load_file(path / "model.safetensors") for path in (joint, two))
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name].float(), weight.float(), rtol=0.02, atol=2e-3)


def full_disk():
    """For preexec_fn: files may not grow beyond some bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def end_of_one_ends_the_other(processes):
    processes[1].kill()
    assert processes[0].wait(timeout=120) == 1
    assert re.search(r"rank 1\)? does not answer any more", processes[0].stderr.read())


def test_two_processes_end_with_one_and_one_goes_on(seer, folder, base, text, joint):
    """With states on the host, which changes no bit on a CPU; before that the disk is full."""
    out, port = folder / "fewer", free_port()
    command = arguments(base, text, out, **sparse(base, **{"save-every": 1}))
    processes = [start(rank, port, [str(BUILD / "seer"), *command, "--states-on-host"]) for rank in (0, 1)]
    wait_for_checkpoint(out, processes[0])
    end_of_one_ends_the_other(processes)
    before = {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir() if ".tmp." not in path.name}
    full = seer(*command, ok=False, preexec_fn=full_disk)
    assert "cannot write" in error_of(full) and "free some space" in full.stderr
    assert {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    assert "going on from step" in seer(*command).stderr
    assert_same_metrics(joint, out)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs")
def test_two_gpus_give_what_one_gives_and_with_one_killed_they_go_on(seer, folder, text):
    """Over NCCL, with heads and blocks that the GPU's kernels take."""
    base, one, two, again = (folder / name for name in ("base_64", "one_gpu", "two_gpus", "gpus_again"))
    seer("pretrain", "--data", text, "--out", base, "--steps", 5, "--hidden", 64, "--layers", 2, "--heads", 2, "--kv-heads", 1,
         "--head-dim", 64, "--intermediate", 96, "--lengths", LENGTH // 4, "--tokens-per-step", 1024, "--device", "cpu")
    seer("distill", "--model", base, "--data", text, "--out", base / "gates", "--steps", 2, "--length", LENGTH // 4, "--sequences", 2, "--device", "cpu")
    made = lambda out, **more: arguments(base, text, out, **sparse(base, device="cuda", **more))  # noqa: E731
    by_two = [TORCHRUN, "--no-python", "--nproc_per_node", "2", BUILD / "seer"]
    seer(*made(one))
    subprocess.run([*by_two, *made(two)], env=environment(), check=True, capture_output=True, timeout=300)
    assert_same_metrics(one, two, "cuda")
    port = free_port()
    processes = [start(rank, port, [str(BUILD / "seer"), *made(again, **{"save-every": 1})]) for rank in (0, 1)]
    wait_for_checkpoint(again, processes[0])
    end_of_one_ends_the_other(processes)
    went_on = subprocess.run([*by_two, *made(again, **{"save-every": 1})], env=environment(), check=True, capture_output=True, text=True, timeout=300)
    assert "going on from step" in went_on.stderr
    for name, weight in load_file(two / "model.safetensors").items():
        assert torch.equal(load_file(again / "model.safetensors")[name], weight), name


def test_muon(seer, folder, base, text):
    out = folder / "muon"
    seer(*arguments(base, text, out, **sparse(base, optimizer="muon", **{"matrix-learning-rate": 4e-3, "final-share": 0.02})))
    lines = [line for line in metrics(out) if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] and lines[0]["lr_matrices"] == pytest.approx(4 * lines[0]["lr_others"])
    assert "settings.muon" in error_of(seer(*arguments(base, text, out, **sparse(base)), ok=False))


@pytest.mark.parametrize("change, words", [
    ({"length": 1024}, "longer than the 512 that the model's RoPE covers"),
    ({"yarn-factor": 1}, "longer than the 128"),
    ({"yarn-factor": 0.5}, "--yarn-factor 0.5: want a number, 1 ... 1024"),
    ({"attention": "dense"}, "--gates means nothing beside --attention dense"),
    ({"rule": "threshold"}, "--density means nothing beside --rule threshold"),
    ({"block": 32}, "--block means nothing beside --gates"),
    ({"density": 0}, "--density 0: want"),
    ({"matrix-learning-rate": 0.1}, "--matrix-learning-rate means nothing beside --optimizer adamw"),
    ({"documents": "joined"}, "want window or packed"),
    ({"length": 16}, "one block of 16 tokens"),  # of the gates that are given
    ({"micro-batch": 5}, "micro-batch is 5, more than the 4 sequences of a step"),
    ({"sequences": 1 << 20, "length": 512, "micro-batch": 1 << 20}, "smaller --length or --micro-batch"),
])
def test_what_is_refused(seer, folder, base, text, change, words):
    out = folder / "refused"
    result = seer(*arguments(base, text, out, **{**sparse(base), **change}), ok=False)
    assert words in error_of(result, result.returncode)
    assert not out.exists() or not any(out.iterdir())


def test_gates_of_another_model(seer, folder, base, text, joint):
    result = seer(*arguments(base, text, folder / "refused", **sparse(base, gates=joint / "gates")), ok=False)
    assert "made for another model" in error_of(result)
    seer(*arguments(base, text, folder / "foreign", **sparse(base, gates=joint / "gates", steps=1, length=48)), "--foreign-gates")
    result = seer(*arguments(base, text, folder / "refused"), "--foreign-gates", ok=False)
    assert "--foreign-gates means nothing without --gates" in error_of(result, 2)
    # A prompt that is too short for them does not hide it.
    generate = ("generate", "--model", base, "--gates", joint / "gates", "--raw", "--prompt", "a", "--max-new-tokens", 1)
    result = seer(*generate, ok=False)
    assert "less than a block" in result.stderr and "made for another model" in error_of(result) and not result.stdout
    seer(*generate, "--foreign-gates")
    assert "--gates means nothing with --method dense" in error_of(seer(*generate, "--method", "dense", ok=False), 2)
    result = seer(*arguments(joint / "gates", text, folder / "refused"), ok=False)
    assert "is a folder of gates" in error_of(result, 2)


def test_gradients_that_are_not_finite(seer, folder, base, text):
    """Steps are left out; ten in a row end the run."""
    broken = folder / "broken"
    shutil.copytree(base, broken, ignore=shutil.ignore_patterns("gates", "checkpoints"))
    weights = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    result = seer(*arguments(broken, text, folder / "nan", block=16, density=0.3, steps=20, sequences=1), ok=False)
    assert "in 10 steps in a row" in error_of(result) and "(1 left out so far)" in result.stderr
    assert not (folder / "nan" / "model.safetensors").exists()
    # Scores of gates alone, in steps that do not train them, too.
    gates = shutil.copytree(base / "gates", folder / "huge gates", ignore=shutil.ignore_patterns("checkpoints"))
    weights = load_file(gates / "attn_gate_weights.safetensors")
    save_file({name: torch.full_like(weight, 3e38) for name, weight in weights.items()}, gates / "attn_gate_weights.safetensors")
    result = seer(*arguments(base, text, folder / "nan gates", **sparse(base, gates=gates, steps=3, **{"gate-every": 3})), ok=False)
    assert "not finite in all steps" in error_of(result)


def test_packed_documents_and_new_gates(seer, folder, base, text):
    """Documents that are shorter than a window; the gate loss in every second step."""
    whole = text.read_text()[:60_000]
    many = folder / "many.jsonl"
    many.write_text("\n".join(json.dumps({"text": whole[i:i + 700]}) for i in range(0, len(whole), 700)))
    out = folder / "packed"
    seer(*arguments(base, many, out, **{"steps": 3, "documents": "packed", "block": 16, "gate-every": 2,
                                        "schedule": "cosine", "rule": "row_budget", "strength": 64, "valid": text}))
    lines = [line for line in metrics(out) if "loss" in line]
    assert [line["gate_loss"] is None for line in lines] == [False, True, False]
    config = json.loads((out / "gates" / "config.json").read_text())
    assert config["seerattn_gate_block_size"] == 16
    few = folder / "few.jsonl"  # none of which is longer than a block of 64
    few.write_text("\n".join(json.dumps({"text": whole[i:i + 20]}) for i in range(0, 20_000, 20)))
    result = seer(*arguments(base, few, folder / "refused", documents="packed"), ok=False)
    assert "leave out --documents packed, or give longer documents" in error_of(result)


def test_the_benchmark_takes_a_step_apart(seer, tmp_path):
    seer("bench", "finetune", "--shapes", "smollm2-135m", "--lengths", 160, "--densities", 0.5, "--runs", 1,
         "--device", "cpu", "--out", tmp_path)
    dense, sparse = json.loads(next(tmp_path.glob("*/finetune.json")).read_text())["rows"]
    assert (dense["implementation"], sparse["implementation"]) == ("dense", "seer")
    for row in (dense, sparse):
        parts = row["parts"]
        assert all(parts[name] > 0 for name in ("attention_forward", "attention_backward", "products", "loss", "optimizer", "rest"))
        assert row["tokens_per_s"] == pytest.approx(160e3 / row["median_ms"])
    assert dense["parts"]["pooled"] == dense["parts"]["gates"] == 0
    assert sparse["parts"]["pooled"] > 0 and sparse["parts"]["gates"] > 0
    assert sparse["parts_without_gates"]["pooled"] == 0 and sparse["without_gates_ms"] > 0
