"""Distillation of gates from a frozen model's own attention maps (arXiv 2410.13276 v4, section 3.2), as `seer distill` does it."""
from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import os
import warnings
from typing import Any, Callable, Optional, Sequence, Union

import torch

from ._data import Mixture, Sequences, digest, held_out
from ._dense_pass import evaluating
from ._learning import Learning
from ._made_for import fingerprint_of
from ._processes import check_job, first_alone, is_model_sharded, of_first, rank, size, sum_over_processes, take_from_first
from ._run import TASK, RunFolder
from .attach import of_model
from .packing import counted
from .saving import save_gates

MOST_LEFT_OUT = 10  # steps in a row


def distill(model: torch.nn.Module, dataset: Any, *, weights: Optional[Sequence[float]] = None, valid: Any = None,
            out: Union[str, os.PathLike, None] = None, steps: int = 500, sequences: int = 16,
            micro_batch: int = 1, valid_sequences: int = 4, loss: str = "kl", skip: Optional[float] = None, loss_scale: float = 10.0,
            learning_rate: float = 1e-3, warmup: Optional[int] = None, weight_decay: float = 0.0, clip: float = 1.0, save_every: int = 50,
            valid_every: int = 0, lookups_only: bool = False, restart: bool = False, on_step: Optional[Callable[[int, dict], None]] = None) -> list[dict]:
    """Trains the gates of `model` (seer.attach); the model itself stays as it is. Same data, first weights (`seed` of attach) and
    settings: the gates that `seer distill --lookup-heads 0` makes, within rounding; `seer.find_lookup_heads` gives them lookup heads.

    dataset: `dataset[i]` is the i-th sequence, token ids [length] or {"input_ids": ...}, all of one length, taken in order; where it
    has a length, it begins again behind its end. seer.PackedWindows is the program's. Several: {name: dataset}, which alternate
    by `weights` (one each; None: equal). A step takes `sequences` of them, `micro_batch` at a time;
    each layer's gate gets its loss and gradient when the layer has run, and the layer's map is dropped. AdamW in float32,
    linear `warmup` (None: 20 steps, at most a sixth of all), then cosine to 0; `clip`: largest global norm of the gradient, 0: no clipping. The
    loss is the sum over layers times `loss_scale`; layers whose sliding window hides keys have none.

    lookups_only: the projections of lookup heads alone learn, by the loss of these heads, and the gates stay as they are: what follows
    `seer.find_lookup_heads`, and is then what `seer distill --gates --lookup-heads` does.

    valid: held-out dataset or {name: dataset}; the first `valid_sequences` of each are measured every `valid_every` steps (0: after
    the last). out: folder of the run, which gets run.json, metrics.jsonl, a checkpoint every `save_every` steps, and the gates at the
    end; the same call goes on from the last checkpoint of a run that was killed, and ends with the same bits. `restart` discards
    the run that lies there. In several processes of torch.distributed (torchrun), process r of n computes micro-batches r, r + n, ... of
    each step, gradients are summed, and the first one writes `out`.

    -> of each step, as in metrics.jsonl, {"step" (from 1), "loss", "kl_per_row" (nats, mean over layers, heads and rows; for "kl" only),
    "grad_norm", "lr", "tokens" (so far)} and, where it was validated, {"valid_loss_<name>", "valid_kl_per_row_<name>"}, without the
    name of one dataset alone; `on_step(step from 0, metrics)` gets them as they come. A step whose loss or gradient is not
    finite is left out with a warning.

    ValueError: no gates, `lookups_only` without lookup heads, settings out of range or other than those of the run in `out`, sequences of
    other lengths or no longer than a block. RuntimeError: ten steps left out in a row.
    """
    attachment = of_model(model)
    for name, value, least in (("steps", steps, 1), ("sequences", sequences, 1), ("micro_batch", micro_batch, 1), ("warmup", warmup or 0, 0),
                               ("valid_sequences", valid_sequences, 1), ("save_every", save_every, 1), ("valid_every", valid_every, 0)):
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"seer.distill: {name} is {value}, want a whole number, {least} or more")
    for name, value in (("clip", clip), ("weight_decay", weight_decay), ("loss_scale", loss_scale), ("learning_rate", learning_rate)):
        may_be_0 = name in ("clip", "weight_decay")
        if not isinstance(value, numbers.Real) or not 0 <= value < math.inf or value == 0 and not may_be_0:
            raise ValueError(f"seer.distill: {name} is {value}, want {'0 or more' if may_be_0 else 'more than 0'}")
    if restart and out is None:
        raise ValueError("seer.distill: restart=True discards the run in `out`, but none is given")
    if torch.is_inference_mode_enabled():
        raise ValueError("seer.distill: gates cannot learn within torch.inference_mode()")
    check_job("seer.distill")
    if is_model_sharded(model):
        raise ValueError("seer.distill: the model's weights are sharded (FSDP2), want a whole model in every process; GateTrainer takes sharded ones")
    learning = Learning(loss, skip, is_dense=True, lookups_only=lookups_only)
    if lookups_only and not attachment.gate_config.lookup_heads:
        raise ValueError("seer.distill: lookups_only=True, but the gates have no lookup heads: seer.find_lookup_heads gives them some")
    if -(-sequences // micro_batch) < size():
        raise ValueError(f"seer.distill: a step has {counted(-(-sequences // micro_batch), 'micro-batch', 'micro-batches')}, too few for {size()} processes: take more "
                         "sequences, a smaller micro_batch, or fewer processes")
    form = Sequences(attachment.gate_config.block_size, attachment.base.get_input_embeddings().weight.shape[0], "seer.distill")
    mixture = Mixture(dataset, weights, form)
    valid_rows = held_out(valid, valid_sequences, form)
    form.warn_of_context(attachment.base.config)
    gate = dataclasses.asdict(attachment.gate_config)
    of_gate = ("type", "block_size", "gate_dim", "force_double", *(("lookup_rank", "lookup_heads") if gate["lookup_heads"] else ()))
    settings = {
        "task": TASK,
        "settings": {"weights": fingerprint_of(model, attachment.base), "first_gates": attachment.first,
                     "gate": {name: gate[name] for name in of_gate}, **({"lookups_only": True} if lookups_only else {}),
                     "data": mixture.identity(), "valid": {f"valid{name}": digest(*rows) for name, rows in valid_rows.items()},
                     "sequences": sequences, "length": form.length, "micro_batch": micro_batch, "loss": loss,
                     "skip": learning.share_without_loss(), "loss_scale": loss_scale, "learning_rate": learning_rate,
                     "weight_decay": weight_decay, "warmup": _warmup(steps, warmup), "dtype": str(model.dtype).removeprefix("torch."),
                     "device": next(attachment.base.parameters()).device.type},
        "loop": {"steps": steps, "clip": clip}}
    home = next(attachment.base.parameters()).device
    with _learning(model, learning) as gates, torch.cuda.device(home) if home.type == "cuda" else contextlib.nullcontext():
        folder = first_alone(lambda: RunFolder(out, settings, restart)) if out is not None else None
        try:
            run = _Distillation(attachment, gates, mixture, valid_rows, settings, folder, valid_every, save_every)
            rows = run.steps(on_step)
            before = f"{attachment.trained} " if lookups_only and attachment.trained else ""
            attachment.trained = before + run.words(rows)
            first_alone(lambda: folder and save_gates(model, out))
        finally:
            if folder:
                folder.close()
    return rows


class _Distillation:
    """The loop: seer/train/loop/loop.cc and seer/train/tasks/distill.cc. `folder`: the first process's, if it is to be kept."""

    def __init__(self, attachment, gates: dict, mixture: Mixture, valid: dict, settings: dict, folder: Optional[RunFolder], valid_every: int,
                 save_every: int):
        self.attachment, self.mixture, self.valid, self.folder = attachment, mixture, valid, folder
        self.s, self.loop = settings["settings"], settings["loop"]
        self.valid_every, self.save_every = valid_every, save_every
        self.weights = list(gates.values())
        self.home = next(attachment.base.parameters()).device
        self.optimizer = torch.optim.AdamW(self.weights, lr=self.s["learning_rate"], weight_decay=self.s["weight_decay"], fused=True)
        self.tensors = {}  # what a resumed run needs
        for name, x in gates.items():
            state = {"step": torch.zeros((), device=x.device), "exp_avg": torch.zeros_like(x.data), "exp_avg_sq": torch.zeros_like(x.data)}
            self.optimizer.state[x] = state
            self.tensors |= {name: x, **{f"{name}.{key}": y for key, y in state.items()}}

    def steps(self, on_step) -> list[dict]:
        state = of_first(lambda: self.folder.resume(self.tensors) if self.folder else {})
        take_from_first(self.tensors.values())
        rows, left_out, steps = state.get("rows", []), state.get("left_out", 0), self.loop["steps"]
        for step in range(state.get("step", 0), steps):
            row, is_left_out = self.one_step(step)
            left_out = left_out + 1 if is_left_out else 0
            is_last, number = step + 1 == steps, step + 1
            if is_last or self.valid_every and number % self.valid_every == 0:
                row |= self.validate()
            rows.append(row)
            if self.folder:
                self.folder.add(row)
            if left_out == min(MOST_LEFT_OUT, steps):
                raise RuntimeError(f"seer.distill: {left_out} steps in a row had a loss or gradient that is not finite: try a smaller learning "
                                   "rate, or a model in bfloat16 in place of float16")
            if is_last or number % self.save_every == 0:
                first_alone(lambda: self.folder and self.folder.save({"step": number, "left_out": left_out}, self.tensors))
            if on_step is not None:
                on_step(step, row)
        return rows

    def one_step(self, step: int) -> tuple[dict, bool]:
        count, some = self.s["sequences"], self.s["micro_batch"]
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
        metrics = torch.zeros(2, dtype=torch.float64, device=self.home)
        for begin in range(rank() * some, count, size() * some):
            n = min(some, count - begin)
            metrics += self.run_model(self.mixture.batch(step * count + begin, n), n / count)
        sum_over_processes([*(x.grad for x in self.weights), metrics])
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.loop["clip"] or math.inf))
        rate = self.s["learning_rate"] * _factor(step, self.loop["steps"], self.s["warmup"])
        row = {"step": step + 1, **self.named(metrics, ""), "grad_norm": norm, "lr": rate, "tokens": (step + 1) * count * self.s["length"]}
        is_finite = math.isfinite(row["loss"]) and math.isfinite(norm)
        if is_finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        elif rank() == 0:
            warnings.warn(f"seer.distill: step {step} is left out, as its loss is {row['loss']:g} and the norm of its gradient {norm:g}")
        return row if is_finite else {**row, "skipped": True}, not is_finite

    @torch.no_grad()
    def run_model(self, ids: torch.Tensor, share: float) -> torch.Tensor:
        """Adds the gradient of sequences to the gates', by their share of a step; [loss, KL a row] float64 by it."""
        attachment = self.attachment
        attachment.base(input_ids=ids.to(self.home), use_cache=False)
        learned, attachment.learned = attachment.learned, None
        if not learned:
            which = "layer of the model" if not attachment.learning.lookups_only else "layer with lookup heads"
            raise ValueError(f"seer.distill: every {which} has a sliding window shorter than {ids.shape[1]} tokens: there is no "
                             "gate to train")
        for _, weights, gradients in learned.values():
            if gradients:
                torch._foreach_add_([x.grad for x in weights], gradients, alpha=self.s["loss_scale"] * share)
        value = sum(value.to(self.home) for value, _, _ in learned.values()) * share
        # The loss is a mean over all elements: times the blocks of a row, it is the mean over rows.
        blocks = -(-ids.shape[1] // attachment.gate_config.block_size)
        return torch.stack([value * self.s["loss_scale"], value * blocks / len(learned)])

    def validate(self) -> dict:
        """Means over held-out sequences, without those of which one is not finite; processes take turns."""
        if not self.valid:
            return {}
        sums = torch.zeros(len(self.valid), 3, dtype=torch.float64, device=self.home)
        learning, turn = self.attachment.learning, 0
        self.attachment.learning = dataclasses.replace(learning, trains=False)
        try:
            for of, rows in zip(sums, self.valid.values()):
                for ids in rows:
                    turn += 1
                    if (turn - 1) % size() == rank():
                        found = self.run_model(ids[None], 1.0)
                        is_finite = found.isfinite().all()
                        of += torch.cat([torch.where(is_finite, found, 0.0), is_finite[None]])
        finally:
            self.attachment.learning = learning
        sum_over_processes([sums])
        row = {}
        for (name, rows), of in zip(self.valid.items(), sums):
            row |= self.named(of[:2] / of[2], name, "valid_")
            if int(of[2]) < len(rows):
                row[f"valid_skipped_windows{name}"] = len(rows) - int(of[2])
        return row

    def named(self, metrics: torch.Tensor, name: str, prefix: str = "") -> dict:
        loss, kl = metrics.tolist()
        return {f"{prefix}loss{name}": loss, **({f"{prefix}kl_per_row{name}": kl} if self.s["loss"] == "kl" else {})}

    def words(self, rows: list[dict]) -> str:
        """How the gates were trained, for their folder."""
        last = [f"{name} {value:.4g}" for name, value in rows[-1].items() if name == "kl_per_row" or name.startswith(("valid_loss", "valid_kl"))]
        what = "Lookup heads distilled" if self.attachment.learning.lookups_only else "Distilled"
        return (f"{what} from the model's own attention maps: {counted(self.loop['steps'], 'step')} of {counted(self.s['sequences'], 'sequence')} of {self.s['length']} "
                f"tokens, {'KL divergence' if self.s['loss'] == 'kl' else 'squared error'}, AdamW with learning rate {self.s['learning_rate']:g}"
                + (f"; at the end {', '.join(last)}" if last else "") + ".")


@contextlib.contextmanager
def _learning(model, learning: Learning):
    """Within it, layers are dense and their gates learn; gives the weights that do, by their names."""
    attachment = model.seer
    every = {f"{number}.{name}": x for number, layer in enumerate(attachment.layers) for name, x in layer.attn_gate.named_parameters()}
    gates = {name: x for name, x in every.items() if not learning.lookups_only or "lookup" in name}
    before, wanted = attachment.learning, [x.requires_grad for x in every.values()]
    try:
        attachment.learning = learning
        for name, weight in every.items():
            weight.requires_grad_(name in gates)
        with evaluating(model):
            yield gates
    finally:
        attachment.learning, attachment.learned = before, None
        for weight, is_wanted in zip(every.values(), wanted):
            weight.grad = None
            weight.requires_grad_(is_wanted)


def _warmup(steps: int, warmup: Optional[int]) -> int:
    return min(20, (steps + 5) // 6) if warmup is None else warmup


def _factor(step: int, steps: int, warmup: int) -> float:
    """Of the learning rate (seer/train/loop/schedule.h)."""
    rise = (step + 1) / warmup if step < warmup else 1.0
    if step <= warmup or steps <= warmup:
        return rise
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
