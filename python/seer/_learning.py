"""The loss of gates inside the layers of a model (arXiv 2410.13276, section 3.2), for distillation and fine-tuning.

A layer computes its gate's loss and its gradient at once and drops the map. What is kept, [] and the gate's gradient, joins the
loss of the model through one node, so that layers may run again in a backward (checkpoints) and nothing is done twice.
"""
from __future__ import annotations

import dataclasses
from typing import Optional

import torch

from .gates import Gate
from .ops import gate_scores, lookup_scores
from .packing import Packing


Pair = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Learning:
    """How gates learn. `skip`: share of the first block rows without loss; None: 1/4 for "kl", 0 for "mse"."""

    kind: str = "kl"
    skip: Optional[float] = None
    is_dense: bool = False  # attention stays dense (distillation); else it takes the blocks that gates choose
    trains: bool = True     # False: the loss alone (validation)
    lookups_only: bool = False  # of distillation: lookup heads alone have a loss, and only their projections learn

    def __post_init__(self):
        if self.kind not in ("kl", "mse"):
            raise ValueError(f"seer: the gates' loss is {self.kind!r}, want kl or mse")
        if self.skip is not None and not 0 <= self.skip < 1:
            raise ValueError(f"seer: skip is {self.skip}, want None or 0 or more, and less than 1")

    def share_without_loss(self) -> float:
        return (0.25 if self.kind == "kl" else 0.0) if self.skip is None else self.skip

    def loss(self, gate: Gate, number: int, plain: Pair, rotated: Pair, angles, packing: Packing, scale: float, target: torch.Tensor):
        """Of the gate of layer `number`: loss [] float64, its weights, and the loss's gradient of each (none, unless it trains).

        plain, rotated: q and k, packed, before and after RoPE; scale: of the attention; target float32 [Hq, rows, blocks], the true
        map, whose rows sum to 1; with `lookups_only` that of the lookup heads.
        """
        weights = [x for x in gate.parameters() if x.requires_grad]
        if not weights:
            raise ValueError(f"seer: the gate of layer {number} is to learn, but its weights have requires_grad=False: freeze the model "
                             "before seer.attach(train_gates=True)")
        same = lambda x: x
        # Tensors saved here are for this gradient alone: hooks around the layer (checkpoints) must not take them.
        with torch.set_grad_enabled(self.trains), torch.autograd.graph.saved_tensors_hooks(same, same):
            lookups = gate.lookups(*rotated)
            scores = (lookup_scores(lookups.q, lookups.k, packing, packing.block, scale=scale) if self.lookups_only else
                      gate_scores(gate(*plain, *angles, packing), lookups, scale))
            loss = torch.ops.seer.gate_loss(scores, target, packing.cu_rows, packing.cu_blocks, self.share_without_loss(), self.kind)
            gradients = torch.autograd.grad(loss, weights) if self.trains else ()
        return loss.detach(), weights, gradients


class _Sum(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(context, value, gradients, *weights):
        context.gradients = gradients
        return value

    @staticmethod
    def backward(context, factor):
        return None, None, *(x * factor.to(x.device) for x in context.gradients)


def sum_over_layers(learned: dict) -> torch.Tensor:
    """float32 [] of {layer: what Learning.loss gave}, differentiable in the gates' weights."""
    if not learned:
        return torch.zeros(())
    parts = list(learned.values())
    value = sum(loss.to(parts[0][0].device) for loss, _, _ in parts).float()
    return _Sum.apply(value, [x for _, _, gradients in parts for x in gradients], *(x for _, weights, _ in parts for x in weights))
