"""Gates that learn in Python: seer.distill makes the gates of `seer distill`, and goes on where it was killed; folders of gates."""
import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import seer
from conftest import BUILD, PACKAGE_PATH, ROOT
from learning_models import BLOCK, ROWS, begin, gates_of, model
from model_families import create, token_ids

REFERENCE = ROOT / "assets" / "reference"


@pytest.fixture(scope="session")
def seer_program(seer):
    return seer


def documents():
    words = (BUILD / "default_text.txt").read_text()[:20_000].split()
    return [" ".join(words[begin:begin + 70 + begin % 50]) for begin in range(0, 420, 70)]


@pytest.mark.parametrize("form,settings", [(dict(), dict()), (dict(type="Qmaxavg_Kmin", gate_dim=96), dict(loss="mse", skip=0.1, clip=0.01)),
                                           (dict(), dict(weight_decay=0.5, warmup=1, learning_rate=0.01, seed=7, steps=5, mixture=True))])
def test_distill_makes_the_programs_gates(form, settings, seer_program, tmp_path):
    """Over more than one epoch of the text; of two texts by weights, with two held out."""
    texts, steps, seed = {"text": documents()}, settings.pop("steps", 4), settings.pop("seed", 1)
    more, valid = {}, {}
    if settings.pop("mixture", False):
        texts, valid = {"a": texts["text"][:4], "b": texts["text"][3:]}, {"c.x": documents()[1:5], "d": documents()[:2]}
        more = dict(weights=[2.5, 1], valid_every=2, valid_sequences=2)
    for name, of in (texts | valid).items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in of))
    files = lambda of: ",".join(str(tmp_path / f"{name}.jsonl") for name in of)
    flags = {"--data": files(texts), **({"--valid": files(valid)} if valid else {}),
             **{f"--{key.replace('_', '-')}": ",".join(map(str, value)) if isinstance(value, list) else value
                for key, value in (settings | more).items()}}
    config = seer.GateConfig(block_size=BLOCK, **form)
    seer_program("distill", "--model", REFERENCE, "--out", tmp_path / "out", "--cache", tmp_path / "cache",
                 "--length", 150, "--sequences", 3, "--micro-batch", 2, "--steps", steps, "--seed", seed, "--device", "cpu", "--dtype", "f32",
                 "--threads", 2, "--block", BLOCK, "--gate-type", config.type, "--gate-dim", config.gate_dim,
                 *(word for flag in flags.items() for word in flag))
    model = AutoModelForCausalLM.from_pretrained(REFERENCE).float()
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    windows = {name: seer.PackedWindows(of, tokenizer, 150, seed + i) for i, (name, of) in enumerate(texts.items())}
    held_out = {name.split(".")[0]: seer.PackedWindows(of, tokenizer, 150, None) for name, of in valid.items()}
    assert sum(x.size // x.length for x in windows.values()) < 3 * steps
    seer.attach(model, config, 0.9, seed=seed)
    before, weights = copy.deepcopy(gates_of(model)), copy.deepcopy(model.model.embed_tokens.weight)
    one = windows if more else windows["text"]
    metrics = seer.distill(model, one, steps=steps, sequences=3, micro_batch=2, **settings, **more, **({"valid": held_out} if valid else {}))
    seer.save_gates(model, tmp_path / "gates")
    found, wanted = (load_file(tmp_path / folder / "attn_gate_weights.safetensors") for folder in ("gates", "out"))
    assert found.keys() == wanted.keys()
    moved = max((found[name] - before[name]).abs().max() for name in found)
    for name in found:
        distance = (found[name] - wanted[name]).abs()
        # AdamW makes steps of one size of gradients that are rounding alone.
        assert distance.max() <= 0.01 * moved and distance.mean() <= 1e-5 * moved, name
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    merged = {}  # validations have lines of their own there
    for row in rows:
        merged.setdefault(row["step"], {}).update(row)
    names = {name for name in merged[steps] if name not in ("tokens_per_s", "seconds")}
    assert names == metrics[-1].keys() and len(names) == {1: 6, 0: 5}[settings.get("loss") != "mse"] + 2 * len(valid)
    for mine, theirs in zip(metrics, merged.values(), strict=True):
        for name in mine:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    mine, theirs = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("gates", "out"))
    names = [name for name in theirs if name.startswith("seerattn") or name == "base_model_fingerprint"]
    assert len(names) >= 5 and {name: mine[name] for name in names} == {name: theirs[name] for name in names}
    assert torch.equal(model.model.embed_tokens.weight, weights)  # the model is as before, and usable
    assert all(x.grad is None for x in model.parameters()) and not any(x.requires_grad for x in gates_of(model).values())
    with seer.record_lists(model) as passes:
        model(token_ids(100))
    assert len(passes) == 1


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="gives every layer the window")
def test_distill_with_windowed_layers_and_datasets_that_end(tmp_path):
    model = seer.attach(create("qwen2_window_layers", tmp_path), seer.GateConfig(block_size=BLOCK), 0.5)
    before, seen = copy.deepcopy(gates_of(model)), []
    model.train()
    metrics = seer.distill(model, [token_ids(100)[0].tolist()], steps=8, sequences=2, learning_rate=0.01, on_step=lambda step, m: seen.append(step))
    assert seen == list(range(8)) and metrics[-1]["loss"] < 0.98 * metrics[0]["loss"] and model.training
    moved = [not torch.equal(x, before[name]) for name, x in gates_of(model).items()]
    assert moved == [True, False, False]


RUN = dict(steps=6, sequences=3, micro_batch=2, learning_rate=0.01, save_every=2, valid_every=3, valid_sequences=1)
KILLED = """
import os, signal, sys
import torch
import seer
from learning_models import ROWS, begin
from test_package_distill import RUN
torch.set_num_threads(int(sys.argv[3]))
seer.distill(begin(sys.argv[1]), {"a": ROWS[:3], "b": ROWS[3:]}, valid=ROWS[1:], out=sys.argv[2], **RUN,
             on_step=lambda step, row: step == 4 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    create("llama3_rope_tied", tmp_path / "model")
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "model", tmp_path / "run", str(torch.get_num_threads())],
                            cwd=ROOT / "tests" / "python",
                            env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD)}, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    folder, steps = tmp_path / "run", []
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 5  # of which the last was after the checkpoint
    run = lambda out, **changes: seer.distill(begin(tmp_path / "model"), {"a": ROWS[:3], "b": ROWS[3:]}, valid=ROWS[1:], out=out,
                                              on_step=lambda step, row: steps.append(step), **{**RUN, **changes})
    with pytest.raises(ValueError, match="has other settings: settings.sequences is 2, was 3; take the same, another folder, or restart=True"):
        run(folder, sequences=2)
    straight, resumed = run(tmp_path / "straight"), run(folder)
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5]
    assert resumed == straight and "valid_kl_per_row" in resumed[2] and "valid_loss" not in resumed[4]
    for name in ("attn_gate_weights.safetensors", "config.json", "metrics.jsonl", "checkpoints/step-00000006.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert run(folder) == straight and len(steps) == 8  # nothing is left to do
    newest = folder / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4] + b"\0\1\0\1")
    with pytest.warns(UserWarning, match="step-00000006.safetensors is damaged: it has other bytes than were written; going on from the one before"):
        assert run(folder) == straight
    assert steps[8:] == [4, 5]
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="no other one is whole"):
        run(folder)
    assert run(folder, restart=True, sequences=2, steps=1)[0]["step"] == 1
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match="holds attn_gate_weights.safetensors, which no run of seer.distill has made"):
        run(folder)
    (folder / "run.json").write_text('{"task": "distill"}')
    with pytest.raises(ValueError, match="is not of a run of seer.distill"):
        run(folder, restart=True)


def test_two_runs_do_not_share_a_folder(model, tmp_path):
    """The second one begins while the first one trains."""
    def second(step, row):
        with pytest.raises(ValueError, match="another process trains in"):
            seer.distill(model, ROWS, out=tmp_path / "run", steps=1, sequences=1)
    seer.distill(model, ROWS, out=tmp_path / "run", steps=1, sequences=1, on_step=second)


def test_what_distill_refuses(model):
    refused = lambda message, *args, error=ValueError, **kwargs: pytest.raises(error, seer.distill, *args, **kwargs).match(message)
    computed = model.model.register_forward_pre_hook(lambda *args: pytest.fail("something was computed"))
    rows = [token_ids(100)[0], token_ids(101)[0]]
    refused(r"sequence 0 of the dataset is int64 \[16\], want token ids, more than a block of 16", model, [rows[0][:16]])
    refused("the dataset is empty", model, [])
    refused("steps is 0, want a whole number, 1 or more", model, rows, steps=0)
    refused("steps is 1.5, want a whole number, 1 or more", model, rows, steps=1.5)
    refused("save_every is 0, want a whole number, 1 or more", model, rows, save_every=0)
    refused("learning_rate is 0, want more than 0", model, rows, learning_rate=0)
    refused("clip is nan, want 0 or more", model, rows, clip=float("nan"))
    refused("sequences is 3, want a whole number", model, rows, sequences="3")
    refused("loss_scale is None, want more than 0", model, rows, loss_scale=None)
    refused("DataParallel has the model with gates inside: give its .module", torch.nn.DataParallel(model), rows)
    with torch.inference_mode():
        refused("gates cannot learn within torch.inference_mode", model, rows)
    refused("restart=True discards the run in `out`, but none is given", model, rows, restart=True)
    refused(r"weights are \[1\], want 2 above 0, one for each dataset", model, {"a": rows, "b": rows}, weights=[1])
    refused(r"weights are \[0\], want 1 above 0", model, rows, weights=[0])
    refused("the dataset is a generator, want sequences by their number", model, (x for x in rows))
    refused("no dataset is given", model, {})
    refused("sequence 0 of the dataset has the token 160, the model knows 0 to 159", model, [torch.full((100,), 160)])
    refused("sequence 0 of the dataset has the fields text, want input_ids", model, [{"text": "a"}])
    refused("sequence 0 of the dataset is a str, want token ids", model, ["a"])
    refused(r"sequence 0 of b is float32 \[100\], want token ids, 100 in one axis", model, {"a": rows, "b": [rows[0].float()]})
    refused(r"sequence 1 of the held-out dataset is int64 \[101\], want token ids, 100 in one axis", model, rows, valid=rows)
    refused("x is empty", model, rows, valid={"x": []})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        refused("this is one of 2 processes, and would train alone", model, rows)
    refused("loss is 'l2', want kl or mse", model, rows, loss="l2")
    refused("skip is 1, want", model, rows, skip=1)
    assert not model.seer.learning.is_dense
    computed.remove()
    refused(r"sequence 1 of the dataset is int64 \[101\], want token ids, 100 in one axis", model, rows, sequences=2, steps=1)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight.fill_(float("nan"))
    before = copy.deepcopy(gates_of(model))
    with pytest.warns(UserWarning, match="step 0 is left out"):
        refused("2 steps in a row had", model, rows[:1], steps=2, sequences=1, error=RuntimeError)
    assert all(torch.equal(x, before[name]) for name, x in gates_of(model).items())
    refused("the model has no gates", seer.detach(model), rows)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    with pytest.raises(ValueError, match="the texts have 3 tokens, fewer than one window of 64"):
        seer.PackedWindows(["a", ""], tokenizer, 64)
    for length in (1, 64.5):
        with pytest.raises(ValueError, match=f"length is {length}, want a whole number, 2 or more"):
            seer.PackedWindows(["a"], tokenizer, length)
    with pytest.raises(ValueError, match="texts is one string"):
        seer.PackedWindows("a" * 100, tokenizer, 64)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no EOS token"):
        seer.PackedWindows(["a"], tokenizer, 64)


# ---- Model cards ---------------------------------------------------------------------------------


def test_a_folder_has_a_model_card(model, tmp_path):
    folder = tmp_path / "gates"
    hub = pytest.importorskip("huggingface_hub")
    model.config._name_or_path = model.model.config._name_or_path = "/cache/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f"
    seer.distill(model, ROWS, steps=1, sequences=1)
    seer.save_gates(model, folder)
    path = folder / "README.md"
    card = hub.ModelCard.load(path)
    assert (card.data.base_model, card.data.library_name, card.data.license) == ("meta-llama/Llama-3.1-8B", "seer-attention", None)
    assert "sparse-attention" in card.data.tags and "q: avg; k: max, min, avg (`Qavg_Kmaxminavg`)" in card.text and "16 tokens" in card.text
    assert "1 step of 1 sequence of 100 tokens, KL divergence" in card.text
    usage = card.text.split("```python\n")[1].split("```")[0]
    assert len(usage.splitlines()) == 5 and 'from_pretrained("meta-llama/Llama-3.1-8B")' in usage
    compile(usage, "card", "exec")
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Base\n")
    model.config._name_or_path = str(base)
    seer.save_gates(model, folder)  # what was written here is written anew
    data = hub.ModelCard.load(path).data
    assert data.license == "apache-2.0" and data.base_model is None
    for text in (path.read_text() + "Mine.\n", path.read_text().replace("Small", "Tiny"), "mine", ""):
        path.write_text(text)
        seer.save_gates(model, folder)
        assert path.read_text() == text
    seer.attach(seer.detach(model), folder, 0.5)


def test_gates_with_nan_are_not_saved(model, tmp_path):
    model.seer.layers[1].attn_gate.mask_linear_k.weight.data[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.attn_gate\.mask_linear_k\.weight has NaN"):
        seer.save_gates(model, tmp_path / "gates")
    assert not (tmp_path / "gates").exists()


def test_files_are_no_folders(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (lambda path: seer.save_gates(model, path), lambda path: seer.distill(model, ROWS, out=path, steps=1, sequences=1)):
        with pytest.raises(ValueError, match="cannot write into .*file: it is not a folder; choose another place"):
            write(tmp_path / "file")
        with pytest.raises(ValueError, match="cannot write into .*file/gates: .*file is not a folder; choose another place"):
            write(tmp_path / "file" / "gates")
    assert (tmp_path / "file").read_text() == "mine"


def test_gates_do_not_replace_a_model(model, tmp_path):
    before = (tmp_path / "config.json").read_bytes()  # the model's
    with pytest.raises(ValueError, match="config.json is not of gates, and would be lost: choose another folder"):
        seer.save_gates(model, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before and not (tmp_path / "attn_gate_weights.safetensors").exists()
    seer.save_gates(model, tmp_path / "gates")
    seer.save_gates(model, tmp_path / "gates")
