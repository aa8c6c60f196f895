"""Gates that learn in Python: seer.distill makes the gates of `seer distill`; fine-tuning with transformers' Trainer."""
import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import seer
from conftest import BUILD, PACKAGE_PATH, ROOT
from model_families import MODELS, create, load, token_ids

if transformers.__version__.startswith("4."):
    transformers.utils.import_utils._datasets_available = False  # Trainer would import it, and that one wants a newer huggingface_hub

REFERENCE = ROOT / "assets" / "reference"
BLOCK = 16


@pytest.fixture(scope="session")
def seer_program(seer):
    return seer


@pytest.fixture
def model(tmp_path):
    """A llama of 3 layers whose gates learn in passes with gradients."""
    model = seer.attach(create("llama3_rope_tied", tmp_path), seer.GateConfig(block_size=BLOCK), 0.5, train_gates=True)
    for layer in model.seer.layers:
        torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
    return model


def gates_of(model):
    return {name: x for name, x in model.named_parameters() if "attn_gate" in name}


def documents():
    words = (ROOT / "README.md").read_text().split()
    return [" ".join(words[begin:begin + 70 + begin % 50]) for begin in range(0, 420, 70)]


# ---- Distillation --------------------------------------------------------------------------------


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
ROWS = [token_ids(150)[0, begin:begin + 100] for begin in range(0, 50, 10)]
KILLED = """
import os, signal, sys
import seer
from test_package_training import ROWS, RUN, begin
seer.distill(begin(sys.argv[1]), {"a": ROWS[:3], "b": ROWS[3:]}, valid=ROWS[1:], out=sys.argv[2], **RUN,
             on_step=lambda step, row: step == 4 and os.kill(os.getpid(), signal.SIGKILL))
"""


def begin(folder):
    return seer.attach(load(folder), seer.GateConfig(block_size=BLOCK), 0.5, seed=3)


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    create("llama3_rope_tied", tmp_path / "model")
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "model", tmp_path / "run"], cwd=ROOT / "tests" / "python",
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
    with pytest.raises(ValueError, match="has a attn_gate_weights.safetensors that no run of seer.distill has made"):
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
    with pytest.raises(ValueError, match="length is 1, want 2 or more"):
        seer.PackedWindows(["a"], tokenizer, 1)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no EOS token"):
        seer.PackedWindows(["a"], tokenizer, 64)


# ---- Model cards ---------------------------------------------------------------------------------


def test_a_folder_has_a_model_card(model, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    model.config._name_or_path = model.model.config._name_or_path = "/cache/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f"
    seer.distill(model, ROWS, steps=1, sequences=1)
    seer.save_gates(model, tmp_path)
    path = tmp_path / "README.md"
    card = hub.ModelCard.load(path)
    assert (card.data.base_model, card.data.library_name, card.data.license) == ("meta-llama/Llama-3.1-8B", "seer-attention", None)
    assert "sparse-attention" in card.data.tags and "q: avg; k: max, min, avg (`Qavg_Kmaxminavg`)" in card.text and "16 tokens" in card.text
    assert "1 steps of 1 sequences of 100 tokens, KL divergence" in card.text
    usage = card.text.split("```python\n")[1].split("```")[0]
    assert len(usage.splitlines()) == 5 and 'from_pretrained("meta-llama/Llama-3.1-8B")' in usage
    compile(usage, "card", "exec")
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Base\n")
    model.config._name_or_path = str(base)
    seer.save_gates(model, tmp_path)  # what was written here is written anew
    data = hub.ModelCard.load(path).data
    assert data.license == "apache-2.0" and data.base_model is None
    for text in (path.read_text() + "Mine.\n", path.read_text().replace("Small", "Tiny"), "mine", ""):
        path.write_text(text)
        seer.save_gates(model, tmp_path)
        assert path.read_text() == text
    seer.attach(seer.detach(model), tmp_path, 0.5)


# ---- Fine-tuning ---------------------------------------------------------------------------------


def gradients(model, *args, weight=10.0, **kwargs):
    model.zero_grad()
    loss = model(*args, use_cache=False, **kwargs).loss + weight * model.seer.gate_loss
    loss.backward()
    return {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}, loss.item()


def test_the_gate_loss_is_that_of_the_true_maps(model):
    """Gates of the first layer, whose q and k are those of the dense model, get the gradient of distillation; the model, that of its own loss."""
    ids = token_ids()
    both, _ = gradients(model, ids, labels=ids)
    own, _ = gradients(model, ids, labels=ids, weight=0.0)
    gate, rest = gates_of(model).keys(), own.keys() - gates_of(model).keys()
    assert all(torch.equal(both[name], own[name]) for name in rest) and rest
    assert all(both[name].abs().max() > 0 and own[name].abs().max() == 0 for name in gate)
    assert model.seer.gate_loss.item() > 0
    first = [name for name in gate if ".layers.0." in name]
    before = {name: x.clone() for name, x in gates_of(model).items()}
    seer.distill(model, ids, steps=1, sequences=1, learning_rate=1e-6, clip=0)  # the first step of AdamW: by the gradient's sign
    for name in first:
        steps, grad = gates_of(model)[name].detach() - before[name], both[name]
        large = grad.abs() > 1e-3 * grad.abs().max()
        assert (steps.sign() == -grad.sign())[large].float().mean() > 0.99


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_gate_loss_counts_once_with_checkpoints(model, reentrant):
    ids = token_ids(100).repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, :30] = 0
    model.train()
    want, value = gradients(model, ids, attention_mask=mask, labels=ids)
    calls, true_map = [], torch.ops.seer.pooled_map
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    counted = lambda *args: calls.append(1) or true_map(*args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.seer, "pooled_map", counted)
        got, again = gradients(model, ids, attention_mask=mask, labels=ids)
    assert len(calls) == 3  # layers
    assert again == pytest.approx(value, rel=1e-6) and got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-5, atol=1e-6)


def test_where_there_is_no_gate_loss(model):
    ids = token_ids(100)
    with pytest.raises(ValueError, match="the last pass had none"):
        model.seer.gate_loss
    model(ids)
    model.seer.gate_loss
    with torch.no_grad():
        out = model(ids, use_cache=True)
    with pytest.raises(ValueError, match="the last pass had none"):
        model.seer.gate_loss
    cache = {"past_key_values" if hasattr(out, "past_key_values") else "cache": getattr(out, "past_key_values", None) or out.cache}
    with pytest.raises(ValueError, match="100 tokens are in a cache already"):
        model(ids, **cache)
    model(ids[:, :8])  # a dense call
    assert model.seer.gate_loss.item() == 0
    model.requires_grad_(False)
    model.model.embed_tokens.requires_grad_()
    with pytest.raises(ValueError, match="the gate of layer 0 is to learn, but its weights have requires_grad=False"):
        model(ids)


def test_bfloat16_and_autocast(tmp_path):
    """Gates stay float32, and gradients are those of float32 as far as bfloat16 goes, where the same blocks (all) are chosen."""
    ids = token_ids(100)
    make = lambda dtype: seer.attach(load(tmp_path, dtype), seer.GateConfig(block_size=BLOCK), 0.0, train_gates=True)
    create("llama3_rope_tied", tmp_path, torch.bfloat16)
    model = make(torch.float32)
    want, loss = gradients(model, ids, labels=ids)
    narrow, _ = gradients(make(torch.bfloat16), ids, labels=ids)
    with torch.autocast("cpu", torch.bfloat16):
        model.gradient_checkpointing_enable()
        mixed, value = gradients(model.train(), ids, labels=ids)
    assert value == pytest.approx(loss, rel=0.02)
    model.eval()
    steps = dict(steps=1, sequences=1)
    exact = seer.distill(make(torch.float32), [ids[0]], **steps)[0]["kl_per_row"]
    with torch.autocast("cpu", torch.bfloat16):
        near = seer.distill(model, [ids[0]], **steps)[0]["kl_per_row"]
    assert [near, seer.distill(make(torch.bfloat16), [ids[0]], **steps)[0]["kl_per_row"]] == pytest.approx([exact, exact], rel=0.05)
    for found in (narrow, mixed):
        assert found.keys() == want.keys()
        for name, x in want.items():
            assert torch.cosine_similarity(found[name].float().flatten(), x.flatten(), 0) > 0.98, name
            assert "attn_gate" not in name or found[name].dtype == torch.float32


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_compiled_models():
    """Of a layer whose gate learns torch.compile leaves out the attention; a pass without gradients and cache is one graph."""
    torch.manual_seed(0)
    config = copy.deepcopy(MODELS["llama3_rope_tied"])
    config.num_hidden_layers = 2
    model = seer.attach(AutoModelForCausalLM.from_config(config), seer.GateConfig(block_size=BLOCK), 0.5, train_gates=True)
    compiled, ids = torch.compile(model, backend="eager"), token_ids(100)
    short = token_ids(70).repeat(2, 1)
    mask = torch.ones_like(short)
    mask[1, :20] = 0
    for given in (dict(input_ids=ids, labels=ids), dict(input_ids=short, labels=short, attention_mask=mask)):
        want, loss = gradients(model, **given)
        model.zero_grad()
        found = compiled(**given, use_cache=False).loss + 10 * model.seer.gate_loss
        found.backward()
        assert found.item() == pytest.approx(loss, rel=1e-5)
        for name, x in model.named_parameters():
            torch.testing.assert_close(x.grad, want[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match="a layer whose gate learns takes gradients itself; compile without fullgraph=True"):
        torch.compile(model, backend="eager", fullgraph=True)(ids, use_cache=False)
    with torch.no_grad():
        whole = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(ids, use_cache=False).logits, model(ids, use_cache=False).logits)
    torch.compiler.reset()


def test_copies_of_data_parallel_are_refused(model):
    with pytest.raises(ValueError, match="DataParallel runs copies of a model"):
        model.model._replicate_for_data_parallel()(token_ids(100))


def test_gates_with_nan_are_not_saved(model, tmp_path):
    model.seer.layers[1].attn_gate.mask_linear_k.weight.data[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.attn_gate\.mask_linear_k\.weight has NaN"):
        seer.save_gates(model, tmp_path / "gates")
    assert not (tmp_path / "gates").exists()


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_trainer(is_frozen, checkpoints, model, tmp_path):
    """Steps by SGD of two batches each are those of the two losses' sum."""
    pytest.importorskip("accelerate")
    from seer.trainer import GateTrainer
    for name, x in model.named_parameters():
        x.requires_grad_("attn_gate" in name or not is_frozen)
    rows = [token_ids(150)[0, begin:begin + 100] for begin in (0, 10, 20, 30)]
    data = [{"input_ids": row, "labels": torch.cat([torch.tensor([-100]), row[1:]])} for row in rows]  # nothing predicts a first token
    expected, rate = copy.deepcopy(model), 0.01
    optimizer = torch.optim.SGD([{"params": [x], "lr": 2 * rate if "attn_gate" in name else rate}
                                 for name, x in expected.named_parameters() if x.requires_grad], rate)
    for step in range(2):
        optimizer.zero_grad()
        for row in rows[2 * step:2 * step + 2]:
            loss = expected(row[None], labels=row[None]).loss + 10 * expected.seer.gate_loss
            (loss / 2).backward()
        optimizer.step()
    first = {name: x.detach().clone() for name, x in model.named_parameters()}
    arguments = TrainingArguments(str(tmp_path / "run"), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=2, use_cpu=True,
                                  optim="sgd", learning_rate=rate, lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
                                  report_to=[], disable_tqdm=True, gradient_checkpointing=checkpoints)
    in_order = type("InOrder", (GateTrainer,), {"_get_train_sampler": lambda self, *args: torch.utils.data.SequentialSampler(data)})
    trainer = in_order(model, arguments, train_dataset=data, eval_dataset=data, gate_learning_rate=2 * rate)
    trainer.train()
    wanted = dict(expected.named_parameters())
    for name, x in model.named_parameters():
        torch.testing.assert_close(x, wanted[name], rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(x, first[name]) == (is_frozen and "attn_gate" not in name), name
    assert trainer.evaluate()["eval_loss"] > 0
    assert model.seer.trained.startswith("Trained with the model frozen: 2 steps" if is_frozen else "Trained with the model, which learned")
    now = dict(model.named_parameters())
    trainer.save_model(tmp_path / "result")
    saved = load(tmp_path / "result")
    assert not any("attn_gate" in name for name in load_file(tmp_path / "result" / "model.safetensors"))
    seer.attach(saved, tmp_path / "result" / "gates", 0.5)
    assert all(torch.equal(x, now[name]) for name, x in saved.named_parameters())


def test_a_run_of_the_trainer_goes_on(tmp_path):
    """From its checkpoint, with the same bits."""
    pytest.importorskip("accelerate")
    from seer.trainer import GateTrainer
    create("llama3_rope_tied", tmp_path / "model")
    data = [{"input_ids": row, "labels": row} for row in ROWS]

    def run(folder, begin=None):
        arguments = TrainingArguments(str(tmp_path / folder), per_device_train_batch_size=1, max_steps=3, use_cpu=True, learning_rate=0.01,
                                      save_strategy="steps", save_steps=2, report_to=[], disable_tqdm=True)
        model = seer.attach(load(tmp_path / "model"), seer.GateConfig(block_size=BLOCK), 0.5, train_gates=True)
        GateTrainer(model, arguments, train_dataset=data).train(resume_from_checkpoint=begin)
        return dict(model.named_parameters())

    straight, resumed = run("a"), run("b", str(tmp_path / "a" / "checkpoint-2"))
    assert all(torch.equal(x, straight[name]) for name, x in resumed.items())


def test_what_the_trainer_refuses(model, tmp_path):
    pytest.importorskip("accelerate")
    from seer.trainer import GateTrainer
    for settings, message in ((dict(gate_loss_weight=0), "gate_loss_weight is 0, want more than 0"),
                              (dict(gate_learning_rate=float("nan")), "gate_learning_rate is nan, want more than 0")):
        with pytest.raises(ValueError, match=message):
            GateTrainer(model, **settings)
    seer.save_gates(model, tmp_path)
    seer.detach(model)
    for _ in range(2):
        with pytest.raises(ValueError, match="the model has no gates that learn"):
            GateTrainer(model)
        if not hasattr(model, "seer"):
            seer.attach(model, tmp_path, 0.5)


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_two_processes(tmp_path):
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = seer.attach(AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]), seer.GateConfig(block_size=16), 0.5)
    rows = seer.distill(model, ROWS[:4], valid=ROWS[:3], steps=4, sequences=3, learning_rate=0.01)
    torch.save((rows, {name: x.detach() for name, x in gates_of(model).items()}), tmp_path / "one.pt")
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                          ROOT / "tests" / "python" / "training_processes.py", tmp_path], capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("same") == 2
