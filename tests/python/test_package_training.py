"""Gates that learn beside a model, by transformers' Trainer and without: their loss and gradients, several processes, torch.compile."""
import copy
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainingArguments

import seer
from conftest import BUILD, PACKAGE_PATH, ROOT
from learning_models import BLOCK, ROWS, gates_of, model
from model_families import MODELS, create, load, token_ids

if transformers.__version__.startswith("4."):
    transformers.utils.import_utils._datasets_available = False  # Trainer would import it, and that one wants a newer huggingface_hub


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


@pytest.mark.parametrize("adapters", [False, True])
def test_a_run_of_the_trainer_goes_on(adapters, tmp_path):
    """From its checkpoint, with the same bits; of PEFT adapters, too."""
    pytest.importorskip("accelerate")
    peft = pytest.importorskip("peft") if adapters else None
    from seer.trainer import GateTrainer
    create("llama3_rope_tied", tmp_path / "model")
    data = [{"input_ids": row, "labels": row} for row in ROWS]

    def run(folder, begin=None):
        arguments = TrainingArguments(str(tmp_path / folder), per_device_train_batch_size=1, max_steps=3, use_cpu=True, learning_rate=0.01,
                                      save_strategy="steps", save_steps=2, report_to=[], disable_tqdm=True)
        model = load(tmp_path / "model")
        torch.manual_seed(0)
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4)) if adapters else model
        seer.attach(model, seer.GateConfig(block_size=BLOCK), 0.5, train_gates=True)
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
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write into .*file: it is not a folder"):
        GateTrainer(model, TrainingArguments(str(tmp_path / "file"), report_to="none"))
    seer.save_gates(model, tmp_path / "gates")
    seer.detach(model)
    for _ in range(2):
        with pytest.raises(ValueError, match="the model has no gates that learn"):
            GateTrainer(model)
        if not hasattr(model, "seer"):
            seer.attach(model, tmp_path / "gates", 0.5)


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="once is enough")
def test_two_processes(tmp_path):
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    config = seer.GateConfig(block_size=16, lookup_rank=16, lookup_heads={1: [0, 2, 3]})  # as in training_processes.py
    model = seer.attach(AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]), config, 0.5)
    rows = seer.distill(model, ROWS[:4], valid=ROWS[:3], steps=4, sequences=3, learning_rate=0.01)
    torch.save((rows, {name: x.detach() for name, x in gates_of(model).items()}), tmp_path / "one.pt")
    torch.manual_seed(0)
    plain = seer.attach(AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]), seer.GateConfig(block_size=16), 0.5)
    lost = seer.find_lookup_heads(plain, [token_ids(270)[0, begin:begin + 250] for begin in (0, 10, 20)], 0.25, windows=3, rank=16)
    heads = plain.seer.gate_config.lookup_heads
    gates = {layer: plain.seer.layers[layer].attn_gate for layer in heads}
    torch.save((lost, heads, {layer: x.lookup_q.weight @ x.lookup_k.weight.transpose(1, 2) for layer, x in gates.items()}), tmp_path / "found.pt")
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                          ROOT / "tests" / "python" / "training_processes.py", tmp_path], capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("same") == 2
