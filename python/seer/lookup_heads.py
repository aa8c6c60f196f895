"""Which heads need to look single tokens up, as `seer distill --lookup-heads` finds them."""
from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Optional, Sequence

import torch

from . import fingerprint
from ._data import Mixture, Sequences, digest
from ._head_needs import FEWEST_BLOCKS, HeadNeeds, neediest, with_repeats
from ._processes import check_job, is_model_sharded, rank as own_rank, size, take_from_first
from .attach import head_sizes, of_model
from .gates import LOOKUP_RANKS
from .packing import counted

_WHO = "seer.find_lookup_heads"


@torch.inference_mode(False)  # what it puts on the model is to be trained
def find_lookup_heads(model: torch.nn.Module, dataset: Any, share: Optional[float] = None, *, cost: Optional[float] = None,
                      weights: Optional[Sequence[float]] = None, first: int = 0, windows: int = 8, rank: int = 32, sparsity: float = 0.9,
                      seed: int = 1) -> torch.Tensor:
    """Measures what every head of `model` (seer.attach) loses where its gate chooses its blocks, and makes the neediest ones lookup heads
    of its gates: `share` of all heads (None: 0.1), those that lose nothing left out. They are those of `seer distill --lookup-heads`. No labels are
    needed; heads that copy and find facts, about a tenth in SmolLM2-135M, lose most. In place of a share: `cost`, the most work of the lookup
    heads' scores beside that of sparse attention at `sparsity`. Scores take 2 rank operations for each pair of tokens, attention 4 D for each
    pair that it computes, in every head; so it is cost * 2 D (1 - sparsity) / rank of the heads, rounded down.

    dataset: as of `seer.distill`, several by `weights`, too; sequences of 16 blocks or more. Of the `windows` from number `first` on, best
    ones that training does not come to, phrases of 2 to 5 tokens are written again to later places, drawn by `seed`. In a dense pass of each,
    the map and the gate each choose blocks by nz_ratio at `sparsity`. A lookup head's projections to `rank` features (16, 32 or
    64) begin with the best that second moments of q and k after RoPE allow (`seer.Gate.lookups`), and are there to use;
    `seer.distill(..., lookups_only=True)` trains them. In several processes of torch.distributed each takes its share of the windows.

    -> float64 [layers, Hq], on the CPU: weights in the true map (each the largest of a block) of blocks that the map's list has and the
    gate's has not, outside of the first block and the last four, summed over a row of blocks, mean over rows; may be above 1. NaN:
    layers whose sliding window hides keys. `seer.save_gates` writes them beside the gates, as heads.json.
    `model.seer.gate_config.lookup_heads` are the heads found. share=0 measures alone, gates with lookup heads, too: what they still lose.

    ValueError: no gates, gates with lookup heads, settings out of range, a cost below that of one head, sequences that are too short, no head loses anything.
    """
    attachment = of_model(model)
    config, layers = attachment.gate_config, attachment.layers
    heads, _, head_dim = head_sizes(layers[0])
    if cost is not None:
        if share is not None:
            raise ValueError(f"{_WHO}: share is {share} and cost is {cost}, which both say how many heads: give one")
        if not isinstance(cost, numbers.Real) or not 0 < cost < math.inf:
            raise ValueError(f"{_WHO}: cost is {cost}, want more than 0, a share of the sparse attention's work")
    share = 0.1 if share is None else share
    if not isinstance(share, numbers.Real) or not 0 <= share <= 1:
        raise ValueError(f"{_WHO}: share is {share}, want a share of all heads, 0 to 1; 0 measures alone")
    for name, value, least in (("windows", windows, 1), ("first", first, 0)):
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{_WHO}: {name} is {value}, want a whole number, {least} or more")
    if not isinstance(sparsity, numbers.Real) or not 0 <= sparsity < 1:
        raise ValueError(f"{_WHO}: sparsity is {sparsity}, want 0 or more, and less than 1")
    if share and config.lookup_heads:
        raise ValueError(f"{_WHO}: the gates have {counted(sum(map(len, config.lookup_heads.values())), 'lookup head')} already: attach gates without any, or "
                         "take share=0, which measures what is still lost")
    if share and (rank not in LOOKUP_RANKS or rank > head_dim):
        raise ValueError(f"{_WHO}: rank is {rank}, want {', '.join(str(x) for x in LOOKUP_RANKS if x <= head_dim)}, of heads of {head_dim} features")
    most = max(1, math.floor(share * len(layers) * heads + 0.5))
    if cost is not None:
        of_one = rank / (2 * head_dim * (1 - sparsity)) / (len(layers) * heads)
        most = math.floor(cost / of_one * (1 + 1e-9))
        if most < 1:
            raise ValueError(f"{_WHO}: cost is {cost}, less than one of the {len(layers) * heads} heads costs, which is {of_one:.6g}")
    check_job(_WHO)
    if is_model_sharded(model):
        raise ValueError(f"{_WHO}: the model's weights are sharded (FSDP2), want a whole model in every process")
    if windows < size():
        raise ValueError(f"{_WHO}: windows is {windows}, too few for {size()} processes")
    form = Sequences(config.block_size, attachment.base.get_input_embeddings().weight.shape[0], _WHO)
    mixture = Mixture(dataset, weights, form)
    least = (FEWEST_BLOCKS - 1) * config.block_size + 1
    if form.length < least:
        raise ValueError(f"{_WHO}: sequences have {form.length} tokens, want {least} or more: {FEWEST_BLOCKS} blocks of {config.block_size}, so that "
                         "some are far from a query")
    form.warn_of_context(attachment.base.config)

    take_from_first(x for layer in layers for x in layer.attn_gate.parameters())
    needs = HeadNeeds(attachment, form.length, windows, sparsity)
    for i in range(own_rank(), windows, size()):
        needs.add(model, with_repeats(mixture.batch(first + i, 1)[0], seed, i))
    lost = needs.sum_up()
    if len(needs.hidden) == len(layers):
        raise ValueError(f"{_WHO}: every layer has a sliding window shorter than {form.length} tokens: no gate chooses blocks")
    for number in range(len(layers)):
        if number not in needs.hidden and not lost[number].isfinite().all():
            raise ValueError(f"{_WHO}: the attention of layer {number} is not finite: try a model in bfloat16 or float32")
    if share:
        found = neediest(lost, most)
        if not found:
            raise ValueError(f"{_WHO}: no head loses anything by these gates, so they need no lookup heads (at sparsity {sparsity:g})")
        before = {f"{number}.{name}": x for number, layer in enumerate(layers) for name, x in layer.attn_gate.named_parameters()}
        _put_on(attachment, needs, found, rank)
        attachment.needs = lost
        attachment.first = (f"{fingerprint.text_of({name: fingerprint.sum_of(x.detach().flatten()) for name, x in before.items()})}, lookup heads "
                            f"of windows {first} to {first + windows - 1} of {digest(*mixture.first.values())}, seed {seed}")
    return lost


def _put_on(attachment, needs: HeadNeeds, heads: dict[int, list[int]], rank: int) -> None:
    config = dataclasses.replace(attachment.gate_config, lookup_rank=rank, lookup_heads=heads)
    weights = {}
    for layer, of in heads.items():
        q, k = zip(*(needs.best_projections(layer, head, rank) for head in of))
        weights[layer] = {"lookup_q": torch.stack(q), "lookup_k": torch.stack(k)}
    attachment.gate_config = config
    for number, layer in enumerate(attachment.layers):
        layer.attn_gate.begin_lookups(config, number, needs.group, weights.get(number, {}))
    take_from_first(x for layer in attachment.layers for x in layer.attn_gate.parameters())
