"""Distillation of gates from a frozen model's own attention maps (arXiv 2410.13276 v4, section 3.2), as `seer distill` does it."""
from __future__ import annotations

import contextlib
import math
import warnings
from typing import Callable, Optional

import torch

from ._learning import Learning
from .attach import of_model

MOST_LEFT_OUT = 10  # steps in a row


def distill(model, dataset, *, steps: int = 500, sequences: int = 16, micro_batch: int = 1, loss: str = "kl", skip: Optional[float] = None,
            loss_scale: float = 10.0, learning_rate: float = 1e-3, warmup: Optional[int] = None, weight_decay: float = 0.0,
            clip: float = 1.0, on_step: Optional[Callable[[int, dict], None]] = None) -> list[dict]:
    """Trains the gates of `model` (seer.attach); the model itself stays as it is. Same data, first weights (`seed` of attach) and
    settings: the gates that `seer distill` makes, within rounding.

    dataset: `dataset[i]` is the i-th sequence, token ids [length], all of one length, taken in order; where it has a length,
    it begins again behind its end. seer.PackedWindows is the program's. A step takes `sequences` of them, `micro_batch` at a time;
    each layer's gate gets its loss and gradient when the layer has run, and the layer's map is dropped. AdamW in float32,
    linear `warmup` (None: 20 steps, at most a sixth of all), then cosine to 0; `clip`: largest global norm of the gradient, 0: no clipping. The
    loss is the sum over layers times `loss_scale`; layers whose sliding window hides keys have none.

    -> of each step {"loss", "kl_per_row" (nats, mean over layers, heads and rows; for "kl" only), "norm" (of the gradient)};
    `on_step(step, metrics)` gets them as they come. A step whose loss or gradient is not finite is left out with a warning.

    ValueError: no gates, settings out of range, sequences of other lengths or no longer than a block. RuntimeError: ten steps
    left out in a row.
    """
    attachment = of_model(model)
    for name, value, least in (("steps", steps, 1), ("sequences", sequences, 1), ("micro_batch", micro_batch, 1), ("warmup", warmup or 0, 0),
                               ("clip", clip, 0), ("weight_decay", weight_decay, 0)):
        if value < least:
            raise ValueError(f"seer.distill: {name} is {value}, want {least} or more")
    gates = [weight for layer in attachment.layers for weight in layer.attn_gate.parameters()]
    metrics, left_out, length = [], 0, None
    with _learning(model, Learning(loss, skip, is_dense=True), gates):
        optimizer = torch.optim.AdamW(gates, lr=learning_rate, weight_decay=weight_decay, fused=True)
        for step in range(steps):
            for weight in gates:
                weight.grad = torch.zeros_like(weight)
            total = kl = 0.0
            for begin in range(0, sequences, micro_batch):
                count = min(micro_batch, sequences - begin)
                ids = _batch(dataset, step * sequences + begin, count, length, attachment.gate_config.block_size)
                length, share = ids.shape[1], count / sequences
                with torch.no_grad():
                    attachment.base(input_ids=ids.to(next(attachment.base.parameters()).device), use_cache=False)
                learned, attachment.learned = attachment.learned, None
                if not learned:
                    raise ValueError(f"seer.distill: every layer of the model has a sliding window shorter than {length} tokens: there is no "
                                     "gate to train")
                for value, weights, gradients in learned.values():
                    torch._foreach_add_([x.grad for x in weights], gradients, alpha=loss_scale * share)
                of_batch = sum(float(value) for value, _, _ in learned.values()) * share
                total += loss_scale * of_batch
                # The loss is a mean over all elements: times the blocks of a row, it is the mean over rows.
                kl += of_batch * -(-length // attachment.gate_config.block_size) / len(learned)
            norm = float(torch.nn.utils.clip_grad_norm_(gates, clip or math.inf))
            metrics.append({"loss": total, **({"kl_per_row": kl} if loss == "kl" else {}), "norm": norm})
            if math.isfinite(total) and math.isfinite(norm):
                left_out = 0
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * _factor(step, steps, warmup)
                optimizer.step()
            else:
                left_out += 1
                warnings.warn(f"seer.distill: step {step} is left out, as its loss is {total:g} and the norm of its gradient {norm:g}")
                if left_out == min(MOST_LEFT_OUT, steps):
                    raise RuntimeError(f"seer.distill: {left_out} steps in a row had a loss or gradient that is not finite: try a smaller learning "
                                       "rate, or a model in bfloat16 in place of float16")
            if on_step is not None:
                on_step(step, metrics[-1])
    return metrics


@contextlib.contextmanager
def _learning(model, learning: Learning, gates: list):
    """Within it, layers are dense and their gates learn."""
    attachment, modes = model.seer, [(module, module.training) for module in model.modules()]
    before, wanted = attachment.learning, [x.requires_grad for x in gates]
    try:
        model.eval()
        attachment.learning = learning
        for weight in gates:
            weight.requires_grad_()
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training
        attachment.learning, attachment.learned = before, None
        for weight, is_wanted in zip(gates, wanted):
            weight.grad = None
            weight.requires_grad_(is_wanted)


def _batch(dataset, first: int, count: int, length: Optional[int], block: int) -> torch.Tensor:
    """Sequences `first` and the `count` - 1 behind it, int64 [count, length]."""
    size = len(dataset) if hasattr(dataset, "__len__") else None
    if size == 0:
        raise ValueError("seer.distill: the dataset is empty")
    rows = []
    for i in range(first, first + count):
        row = torch.as_tensor(dataset[i if size is None else i % size])
        if row.dim() != 1 or row.is_floating_point() or row.shape[0] <= block or row.shape[0] != (length or row.shape[0]):
            wanted = f"{length}" if length else f"more than a block of {block}"
            raise ValueError(f"seer.distill: sequence {i} of the dataset is {str(row.dtype).removeprefix('torch.')} {list(row.shape)}, want token "
                             f"ids, {wanted} in one axis")
        length = row.shape[0]
        rows.append(row.long())
    return torch.stack(rows)


def _factor(step: int, steps: int, warmup: Optional[int]) -> float:
    """Of the learning rate (seer/train/loop/schedule.h)."""
    rise_steps = min(20, (steps + 5) // 6) if warmup is None else warmup
    rise = (step + 1) / rise_steps if step < rise_steps else 1.0
    if step <= rise_steps or steps <= rise_steps:
        return rise
    return (1 + math.cos(math.pi * (step - rise_steps) / (steps - rise_steps))) / 2
