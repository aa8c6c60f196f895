#!/usr/bin/env python3
"""Training from Python: seer.trainer.GateTrainer on a transformers model, by one process or, sharded by FSDP2, by several.

    python bench/python_training.py --append                                                      # one GPU
    torchrun --standalone --nproc-per-node 2 bench/python_training.py --append                    # two: the same data, the same steps

Llama-3.2-1B's shape with random weights and random tokens. Two tasks: *gates*, the model frozen, and *finetune*, all weights through the
chosen blocks. A row has the model's own loss and the norm of the gradient in each step, tokens a second and the peak memory of one GPU;
results/<chip>/python_training.json.
"""
import argparse
import os
import pathlib
import statistics
import sys
import time

import torch
import transformers

import cases  # noqa: F401  before seer, which it finds
import record
import seer
from seer.trainer import GateTrainer

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHOD = ("median wall time of the steps after the first, GPUs idle before and after each; float32 weights, products in bfloat16 (autocast; FSDP2: mixed "
          "precision), activation checkpoints; a step's sequences are shared by the processes; losses in float32, of the model without its gates; memory: what "
          "the allocator held at most")
SHAPES = {
    "llama-3.2-1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
                         vocab_size=128256, tie_word_embeddings=True, rope_theta=500000.0, max_position_embeddings=131072),
    "tiny": dict(hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=64, vocab_size=500),
}
TASKS = ("gates", "finetune")


class InOrder(GateTrainer):
    """Every run reads the same sequences in the same order."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Losses:
    """The model's own, in float32: accelerate has FSDP2 round outputs to bfloat16, among them the loss that Trainer logs."""

    def __init__(self, model):
        self.function, self.of_batches = model.loss_function, []
        model.loss_function = self

    def __call__(self, *args, num_items_in_batch, **kwargs):
        loss = self.function(*args, num_items_in_batch=num_items_in_batch, **kwargs)
        self.of_batches.append(loss.detach() * num_items_in_batch)  # the sum over a batch's tokens
        return loss

    def of_steps(self, a):
        """The mean over the tokens of a step that have one after them."""
        sums = torch.stack(self.of_batches).view(a.steps, -1).sum(1)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return [round(loss, 5) for loss in (sums / (a.sequences * (a.length - 1))).tolist()]


class Steps(transformers.TrainerCallback):
    def __init__(self, device):
        self.device, self.seconds = device, []

    def _wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def on_step_begin(self, *_, **__):
        self._wait()
        self.begin = time.perf_counter()

    def on_step_end(self, *_, **__):
        self._wait()
        self.seconds.append(time.perf_counter() - self.begin)


def train(task, a, world):
    """A row of this run."""
    config = transformers.LlamaConfig(**SHAPES[a.shape])
    torch.manual_seed(0)
    with torch.device(a.device):
        model = transformers.AutoModelForCausalLM.from_config(config).float().requires_grad_(task != "gates")
    seer.attach(model, seer.GateConfig(), a.sparsity, train_gates=True)
    if task == "gates":
        model.enable_input_require_grads()
    rows = torch.randint(3, config.vocab_size, (a.steps * a.sequences, a.length), generator=torch.Generator().manual_seed(1))
    sharded = dict(fsdp=True, fsdp_config={"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "activation_checkpointing": True})
    arguments = transformers.TrainingArguments(
        str(a.scratch), per_device_train_batch_size=1, gradient_accumulation_steps=a.sequences // world, max_steps=a.steps, learning_rate=1e-4,
        lr_scheduler_type="constant", bf16=a.device == "cuda", save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1,
        use_cpu=a.device == "cpu", **(sharded if world > 1 else dict(gradient_checkpointing=True)))
    losses, steps = Losses(model), Steps(a.device)
    trainer = InOrder(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in rows], callbacks=[steps])
    if a.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2 ** 20 if a.device == "cuda" else None
    seconds = statistics.median(steps.seconds[1:])
    return {"task": task, "model": a.shape, "gpus": world if a.device == "cuda" else 0, "len_q": a.length, "len_k": a.length, "heads_q": config.num_attention_heads,
            "heads_kv": config.num_key_value_heads, "head_dim": config.head_dim, "dtype": "bf16" if a.device == "cuda" else "f32", "sparsity": a.sparsity,
            "sequences": a.sequences, "losses": losses.of_steps(a), "grad_norms": [float(f"{line['grad_norm']:.5g}") for line in trainer.state.log_history if "grad_norm" in line],
            "median_ms": 1e3 * seconds, "tokens_per_s": round(a.sequences * a.length / seconds), "peak_mib": peak}


def main():
    tokens = lambda text: int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)  # noqa: E731
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS), help=f"of {', '.join(TASKS)}")
    p.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    p.add_argument("--length", type=tokens, default=32768, help="tokens of a sequence (default 32k)")
    p.add_argument("--sequences", type=int, default=4, help="of a step, of all processes together (default 4)")
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--sparsity", type=float, default=0.9)
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--scratch", default="/tmp/python_training")
    p.add_argument("--out", default=str(ROOT / "results"))
    p.add_argument("--append", action="store_true", help="keep the rows of the file that this run does not measure")
    a = p.parse_args()
    world = int(os.environ.get("WORLD_SIZE", 1))
    if a.sequences % world or not set(a.tasks) <= set(TASKS):
        p.error(f"want --tasks of {', '.join(TASKS)}, and --sequences that {world} processes can share")
    rows = []
    for task in a.tasks:
        rows.append(train(task, a, world))
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if a.device != "cuda" or int(os.environ.get("RANK", 0)):
        return
    command = record.portable(" ".join((f"torchrun --standalone --nproc-per-node {world}" if world > 1 else "python", "bench/python_training.py", *sys.argv[1:])))
    made = record.make(command, METHOD, {"transformers": transformers.__version__}, rows, {}, "python training")
    path = pathlib.Path(a.out) / record.slug(torch.cuda.get_device_name()) / "python_training.json"
    if a.append and path.exists():
        made = joined(record.read(path), made)
    record.write(path, made)
    print(f"written: {path}")


def joined(old, new):
    """`new`, and rows of `old` of other tasks, shapes or numbers of GPUs."""
    try:
        return record.merge(old, new, lambda row: (row["task"], row["model"], row["gpus"], row["len_q"]))
    except ValueError:
        raise SystemExit("the file's results are of another chip or other versions: write to another --out, or leave --append away") from None


if __name__ == "__main__":
    main()
