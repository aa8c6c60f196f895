"""Run by torchrun, two processes on CPUs: gates that learn under DDP (GateTrainer) and FSDP2 get the gradients of one process."""
import sys

import torch
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, TrainingArguments

import seer
from model_families import MODELS, token_ids
from seer.trainer import GateTrainer

ROWS = [token_ids(150)[0, begin:begin + 100] for begin in (0, 10, 20, 30)]
DATA = [{"input_ids": row, "labels": torch.cat([torch.tensor([-100]), row[1:]])} for row in ROWS]  # nothing predicts a first token
RATE = 0.01


class InOrder(GateTrainer):
    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(DATA)


def make(is_frozen):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["llama3_rope_tied"]).requires_grad_(not is_frozen)
    return seer.attach(model, seer.GateConfig(block_size=16), 0.5, train_gates=True)


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


def data_parallel(is_frozen, folder):
    model, wanted = make(is_frozen), expected(is_frozen, 2)
    arguments = TrainingArguments(folder, per_device_train_batch_size=1, max_steps=2, use_cpu=True, optim="sgd", learning_rate=RATE,
                                  lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no", report_to=[], disable_tqdm=True)
    InOrder(model, arguments, train_dataset=DATA).train()
    for name, x in model.named_parameters():
        torch.testing.assert_close(x, wanted[name], rtol=1e-5, atol=1e-6, msg=lambda m: f"{name}: {m}")


def shard(model):
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    for layer in [*model.model.layers, model]:
        fully_shard(layer, mesh=mesh)
    return model


def refused():
    """No gradient passes through layers whose weights are frozen."""
    try:
        loss_of(shard(make(True)), ROWS[0])
    except ValueError as error:
        assert "call model.enable_input_require_grads()" in str(error)
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
    for name, x in model.named_parameters():
        torch.testing.assert_close(x.full_tensor(), wanted[name], rtol=1e-5, atol=1e-6, msg=lambda m: f"{name}: {m}")


torch.set_num_threads(1)
for is_frozen in (False, True):
    data_parallel(is_frozen, sys.argv[1])
    for checkpoints in (False, True):
        sharded(is_frozen, checkpoints)
refused()
print("same")
torch.distributed.destroy_process_group()
