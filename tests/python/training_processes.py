"""Run by torchrun, two processes on CPUs: gates that learn under DDP (GateTrainer) and FSDP2, torch's own and accelerate's, get the
gradients of one process, and are saved whole."""
import os
import pathlib
import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from transformers import AutoModelForCausalLM, TrainingArguments

import seer
from model_families import MODELS, token_ids
from seer.trainer import GateTrainer

ROWS = [token_ids(150)[0, begin:begin + 100] for begin in (0, 10, 20, 30)]
LONG_ROWS = [token_ids(270)[0, begin:begin + 250] for begin in (0, 10, 20)]
DATA = [{"input_ids": row, "labels": torch.cat([torch.tensor([-100]), row[1:]])} for row in ROWS]  # nothing predicts a first token
RATE = 0.01
LAYERS = dict(version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP")


class InOrder(GateTrainer):
    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(DATA)


def make(is_frozen):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]).requires_grad_(not is_frozen)
    return seer.attach(model, seer.GateConfig(block_size=16, lookup_rank=16, lookup_heads={1: [0, 2, 3]}), 0.5, train_gates=True)


def make_plain():
    """Without lookup heads."""
    torch.manual_seed(0)
    return seer.attach(AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]), seer.GateConfig(block_size=16), 0.5)


def loss_of(model, row):
    return model(row[None], labels=row[None], use_cache=False).loss + 10 * model.seer.gate_loss


def expected(is_frozen, steps):
    model = make(is_frozen)
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], RATE)
    for step in range(steps):
        optimizer.zero_grad()
        for row in ROWS[2 * step:2 * step + 2]:
            (loss_of(model, row) / 2).backward()
        optimizer.step()
    return dict(model.named_parameters())


def compare(model, wanted):
    for name, x in model.named_parameters():
        name, x = name.replace("_checkpoint_wrapped_module.", ""), x.full_tensor() if hasattr(x, "full_tensor") else x
        torch.testing.assert_close(x, wanted[name], rtol=1e-5, atol=1e-6, msg=lambda m: f"{name}: {m}")


def trained(is_frozen, folder, **fsdp):
    """Two steps by GateTrainer. Without `fsdp`, DDP."""
    model, wanted = make(is_frozen), expected(is_frozen, 2)
    if fsdp and is_frozen:
        model.enable_input_require_grads()
    arguments = TrainingArguments(folder, per_device_train_batch_size=1, max_steps=2, use_cpu=True, optim="sgd", learning_rate=RATE,
                                  lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no", report_to=[], disable_tqdm=True,
                                  **(dict(fsdp=True, fsdp_config=fsdp) if fsdp else {}))
    as_on_gpus(bool(fsdp))
    trainer = InOrder(model, arguments, train_dataset=DATA, gate_learning_rate=RATE)
    trainer.train()
    assert isinstance(model, FSDPModule) == bool(fsdp)
    compare(model, wanted)
    return trainer


def as_on_gpus(is_so):
    """Accelerate takes no notice of its FSDP plugin where processes are on CPUs: it is to think that they are not."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    if is_so:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def prepared(is_frozen, checkpoints):
    """A step of a loop of one's own, by Accelerator.prepare."""
    model, wanted = make(is_frozen), expected(is_frozen, 1)
    if is_frozen:
        model.enable_input_require_grads()
    as_on_gpus(True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap", activation_checkpointing=checkpoints)
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD([x for x in model.parameters() if x.requires_grad], RATE))
    assert isinstance(model, FSDPModule)
    accelerator.backward(loss_of(model, ROWS[torch.distributed.get_rank()]))
    optimizer.step()
    compare(model, wanted)


def saved(trainer, folder):
    """By one process, whole; with a fingerprint of the whole model."""
    trainer.save_model(folder)
    torch.distributed.barrier()
    names = {path.name for path in (folder / "gates").iterdir()}
    assert {"config.json", "attn_gate_weights.safetensors"} <= names and not any(".tmp" in name for name in names)
    again = seer.attach(AutoModelForCausalLM.from_pretrained(folder), folder / "gates", 0.5)  # refuses other weights
    compare(trainer.model, dict(again.named_parameters()))


def resumed(folder):
    """A sharded run goes on from its checkpoint, with the same bits."""
    def run(name, begin=None):
        arguments = TrainingArguments(folder / name, per_device_train_batch_size=1, max_steps=2, use_cpu=True, learning_rate=RATE,
                                      save_strategy="steps", save_steps=1, report_to=[], disable_tqdm=True, fsdp=True, fsdp_config={**LAYERS})
        as_on_gpus(True)
        model = make(False)
        InOrder(model, arguments, train_dataset=DATA).train(resume_from_checkpoint=begin)
        return {name: x.full_tensor() for name, x in model.named_parameters()}
    straight, again = run("straight"), run("again", str(folder / "straight" / "checkpoint-1"))
    assert all(torch.equal(x, straight[name]) for name, x in again.items())


def distilled(folder):
    """Micro-batches and held-out sequences are dealt out, and the first process writes; with the results of one process."""
    gates = lambda model: {name: x.detach().clone() for name, x in model.named_parameters() if "attn_gate" in name}
    settings = dict(valid=ROWS[:3], steps=4, sequences=3, learning_rate=0.01, save_every=2)
    model = make(True)
    if torch.distributed.get_rank() == 1:
        torch.nn.init.ones_(model.seer.layers[0].attn_gate.mask_linear_k.weight)  # the first process's count
    rows = seer.distill(model, ROWS, out=folder / "run", **settings)
    wanted_rows, wanted = torch.load(folder / "one.pt")
    assert len(rows) == len(wanted_rows)
    for found, want in zip(rows, wanted_rows):
        assert found.keys() == want.keys()
        for name in want:
            assert abs(found[name] - want[name]) <= 1e-5 * abs(want[name]), (name, found[name], want[name])
    for name, x in gates(model).items():
        torch.testing.assert_close(x, wanted[name], rtol=1e-5, atol=1e-6)
    assert rows == seer.distill(make(True), ROWS, out=folder / "run", **settings)  # nothing is left to do, in all processes
    seer.attach(seer.detach(make(True)), folder / "run", 0.5)
    for changes, message in ((dict(steps=5), "has other settings: loop.steps is 5, was 4"), (dict(micro_batch=2, sequences=2), "has 1 micro-batch")):
        try:
            seer.distill(make(True), ROWS, out=folder / "run", **{**settings, **changes})
        except ValueError as error:
            assert message in str(error), error
        else:
            raise AssertionError(message)


def found(folder):
    """Lookup heads by the windows of both processes."""
    model = make_plain()
    if torch.distributed.get_rank() == 1:
        torch.nn.init.ones_(model.seer.layers[0].attn_gate.mask_linear_k.weight)  # the first process's count
    lost = seer.find_lookup_heads(model, LONG_ROWS, 0.25, windows=3, rank=16)
    wanted_lost, heads, wanted = torch.load(folder / "found.pt")
    torch.testing.assert_close(lost, wanted_lost, rtol=1e-5, atol=1e-6)
    assert model.seer.gate_config.lookup_heads == heads
    for layer in heads:
        gate = model.seer.layers[layer].attn_gate
        torch.testing.assert_close(gate.lookup_q.weight @ gate.lookup_k.weight.transpose(1, 2), wanted[layer], rtol=1e-3, atol=1e-4)
    try:
        seer.find_lookup_heads(make_plain(), LONG_ROWS, windows=1, rank=16)
    except ValueError as error:
        assert "windows is 1, too few for 2 processes" in str(error), error
    else:
        raise AssertionError("a process without windows")


def shard(model):
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    for layer in [*model.model.layers, model]:
        fully_shard(layer, mesh=mesh)
    return model


def refused(model, message):
    try:
        model(ROWS[0][None], use_cache=False)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError("gates' gradients would be lost")


def sharded(is_frozen, checkpoints):
    model, wanted = make(is_frozen), expected(is_frozen, 1)
    if checkpoints:
        model.gradient_checkpointing_enable()
        model.train()
    if is_frozen:
        model.enable_input_require_grads()
    shard(model)
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], RATE)
    loss_of(model, ROWS[torch.distributed.get_rank()]).backward()
    optimizer.step()
    compare(model, wanted)


torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
folder = pathlib.Path(sys.argv[1])
distilled(folder)
found(folder)
for is_frozen in (False, True):
    trained(is_frozen, folder)
    for checkpoints in (False, True):
        sharded(is_frozen, checkpoints)
    prepared(is_frozen, checkpoints=not is_frozen)
saved(trained(False, folder, **LAYERS), folder / "tuned")
saved(trained(True, folder, **LAYERS, activation_checkpointing=True, cpu_ram_efficient_loading=True), folder / "frozen")
trained(True, folder, version=2, auto_wrap_policy="NO_WRAP")
resumed(folder)
for whole in (False, True):
    frozen = make(True)
    refused(fully_shard(frozen) if whole else shard(frozen), "call model.enable_input_require_grads()")
for original in (False, True):
    refused(FullyShardedDataParallel(make(False), use_orig_params=original, device_id=torch.device("cpu")), "take FSDP2")
print("same", flush=True)
torch.distributed.destroy_process_group()
os._exit(0)  # Gloo's threads free what they have gathered when they come to it, and abort where the interpreter is already gone
