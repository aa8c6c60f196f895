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
from model_families import create, token_ids

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
                                           (dict(), dict(weight_decay=0.5, warmup=1, learning_rate=0.01, seed=7, steps=5))])
def test_distill_makes_the_programs_gates(form, settings, seer_program, tmp_path):
    """Over more than one epoch of the text."""
    texts = documents()
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    steps, seed = settings.pop("steps", 4), settings.pop("seed", 1)
    flags = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]
    config = seer.GateConfig(block_size=BLOCK, **form)
    seer_program("distill", "--model", REFERENCE, "--data", tmp_path / "text.jsonl", "--out", tmp_path / "out", "--cache", tmp_path / "cache",
                 "--length", 150, "--sequences", 3, "--micro-batch", 2, "--steps", steps, "--seed", seed, "--device", "cpu", "--dtype", "f32",
                 "--threads", 2, "--block", BLOCK, "--gate-type", config.type, "--gate-dim", config.gate_dim, *flags)
    model = AutoModelForCausalLM.from_pretrained(REFERENCE).float()
    windows = seer.PackedWindows(texts, AutoTokenizer.from_pretrained(REFERENCE), 150, seed)
    assert windows.size // windows.length < 3 * steps
    seer.attach(model, config, 0.9, seed=seed)
    before, weights = copy.deepcopy(gates_of(model)), copy.deepcopy(model.model.embed_tokens.weight)
    metrics = seer.distill(model, windows, steps=steps, sequences=3, micro_batch=2, **settings)
    seer.save_gates(model, tmp_path / "gates")
    found, wanted = (load_file(tmp_path / folder / "attn_gate_weights.safetensors") for folder in ("gates", "out"))
    assert found.keys() == wanted.keys()
    moved = max((found[name] - before[name]).abs().max() for name in found)
    for name in found:
        distance = (found[name] - wanted[name]).abs()
        # AdamW makes steps of one size of gradients that are rounding alone.
        assert distance.max() <= 0.01 * moved and distance.mean() <= 1e-5 * moved, name
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    for mine, theirs in zip(metrics, (row for row in rows if "loss" in row), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ("kl_per_row" in mine) == ("kl_per_row" in theirs)
        assert mine.get("kl_per_row", 0) == pytest.approx(theirs.get("kl_per_row", 0), rel=1e-4)
    mine, theirs = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("gates", "out"))
    names = [name for name in theirs if name.startswith("seerattn") or name == "base_model_fingerprint"]
    assert len(names) >= 5 and {name: mine[name] for name in names} == {name: theirs[name] for name in names}
    assert torch.equal(model.model.embed_tokens.weight, weights)  # the model is as before, and usable
    assert all(x.grad is None for x in model.parameters()) and not any(x.requires_grad for x in gates_of(model).values())
    with seer.record_lists(model) as passes:
        model(windows[0][None])
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


def test_what_distill_refuses(model):
    refused = lambda message, *args, error=ValueError, **kwargs: pytest.raises(error, seer.distill, *args, **kwargs).match(message)
    rows = [token_ids(100)[0], token_ids(101)[0]]
    refused(r"sequence 1 of the dataset is int64 \[101\], want token ids, 100 in one axis", model, rows, sequences=2, steps=1)
    refused(r"sequence 0 of the dataset is int64 \[16\], want token ids, more than a block of 16", model, [rows[0][:16]])
    refused("the dataset is empty", model, [])
    refused("steps is 0, want 1 or more", model, rows, steps=0)
    refused("loss is 'l2', want kl or mse", model, rows, loss="l2")
    refused("skip is 1, want", model, rows, skip=1)
    assert not model.seer.learning.is_dense
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
    optimizer = torch.optim.SGD([x for x in expected.parameters() if x.requires_grad], rate)
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
    trainer = in_order(model, arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    wanted = dict(expected.named_parameters())
    for name, x in model.named_parameters():
        torch.testing.assert_close(x, wanted[name], rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(x, first[name]) == (is_frozen and "attn_gate" not in name), name
    assert trainer.evaluate()["eval_loss"] > 0
    seer.save_gates(model, tmp_path / "gates")
    seer.detach(model)
    seer.attach(model, tmp_path / "gates", 0.5)


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_two_processes(tmp_path):
    pytest.importorskip("accelerate")
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                          ROOT / "tests" / "python" / "training_processes.py", tmp_path], capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("same") == 2
