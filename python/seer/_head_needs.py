"""What heads lose where their gates choose blocks, and the best projections of lookup heads: seer/models/gates/head_needs.cc and
seer/io/repeated_passages.cc in Python."""
from __future__ import annotations

import math
from typing import Optional

import torch

from ._attention import Layer
from ._dense_pass import see_layers
from ._processes import sum_over_processes
from ._random import Random
from .attach import device_of, head_sizes
from .fingerprint import MASK, mix64
from .ops import gate_scores, pooled_attention, select_blocks
from .packing import ceil_div

RECENT = 4          # blocks up to the diagonal that are near: any rule keeps them, as it does the first
FEWEST_BLOCKS = 16  # of a sequence, so that some are far
TOKENS_OF_PHRASE, TOKENS_FOR_PHRASE, TRIES = (2, 5), 32, 64
_PHRASES = 0x6c6f6f6b757073  # a stream of random numbers


def far_blocks(rows: int, blocks: int, device=None) -> torch.Tensor:
    """bool [rows, blocks] of one whole sequence: neither the first block nor among the latest that a row sees."""
    row, column = torch.arange(rows, device=device)[:, None], torch.arange(blocks, device=device)
    return (column > 0) & (column <= row - RECENT)


def with_repeats(ids: torch.Tensor, seed: int, index: int) -> torch.Tensor:
    """ids int64 [length] of which phrases, 2 to 5 tokens for each 32 of the text, are written again to later places: what can be read
    off only by looking far back for few tokens. The first token, BOS, stays."""
    length, out, random = len(ids), ids.clone(), Random(mix64((seed & MASK) ^ _PHRASES), index)
    taken = torch.zeros(length, dtype=torch.bool)
    taken[0] = True

    def place(size: int) -> Optional[int]:
        for _ in range(TRIES):
            at = random.below(length - size + 1)
            if not taken[at:at + size].any():
                taken[at:at + size] = True
                return at
        return None

    shortest, longest = TOKENS_OF_PHRASE
    for _ in range(length // TOKENS_FOR_PHRASE):
        size = shortest + random.below(longest - shortest + 1)
        places = place(size), place(size)
        if None not in places:
            first, again = sorted(places)
            out[again:again + size] = out[first:first + size]
    return out


class HeadNeeds:
    """Sums over sequences of `length` tokens, `count` in all processes: `add` each once, then `sum_up` in every process."""

    def __init__(self, attachment, length: int, count: int, sparsity: float):
        self.sparsity, self.tokens, self.rows = sparsity, count * length, count * ceil_div(length, attachment.gate_config.block_size)
        self.num_heads, num_kv_heads, size = head_sizes(attachment.layers[0])
        self.group = self.num_heads // num_kv_heads
        layers, f64 = len(attachment.layers), dict(dtype=torch.float64, device=device_of(attachment.base))
        self.lost = torch.zeros(layers, self.num_heads, **f64)
        self.moments = torch.zeros(layers, self.num_heads + num_kv_heads, size, size, **f64)  # sums of x x^T over tokens, of q and k after RoPE
        self.hidden: set[int] = set()  # layers whose sliding window hides keys

    def add(self, model, ids: torch.Tensor) -> None:
        """A dense pass of ids int64 [length]."""
        see_layers(model, ids, self._see)

    def _see(self, layer: Layer, window: Optional[int]) -> torch.Tensor:
        if window is not None:
            self.hidden.add(layer.number)
            return layer.dense(window)
        part = layer.of.on(None, ("part", "all"), lambda: layer.of.part("all", layer.block))
        packing = layer.packing(part, "all")
        q, k, v = layer.packed(part, "all")
        o, _, weights = pooled_attention(q, k, v, packing, layer.block, scale=layer.scale)
        scores = gate_scores(layer.choose(part, "all"), layer.gate.lookups(*layer.rotated(part, "all")), layer.scale)
        # What no query of a row sees has a weight of 0, as something seen may have, but is never chosen.
        by_map = weights.masked_fill(scores.isneginf(), -math.inf)
        best, kept = (select_blocks(x, self.sparsity, packing).to_mask() for x in (by_map, scores))
        missed = best & ~kept & far_blocks(*weights.shape[1:], weights.device)
        self.lost[layer.number] += (weights * missed).sum((1, 2), dtype=torch.float64).to(self.lost.device)
        with torch.autocast(q.device.type, enabled=False):
            found = torch.cat([torch.bmm(x.permute(1, 2, 0), x.transpose(0, 1)) for x in (q.float(), k.float())])
        self.moments[layer.number] += found.double().to(self.moments.device)
        return layer.whole([(o, layer.index(part, "all")[0])])

    def sum_up(self) -> torch.Tensor:
        """float64 [layers, Hq], on the CPU: of the true map's weights, outside of the first block and the last four, what lists by the
        map keep and lists by the gate do not; summed over a row's blocks, mean over rows. NaN: layers whose window hides keys."""
        sum_over_processes([self.lost, self.moments])
        self.moments = self.moments.cpu() / self.tokens
        lost = self.lost.cpu() / self.rows
        lost[list(self.hidden)] = math.nan
        return lost

    def best_projections(self, layer: int, head: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [D, rank] for q and for k of a query head, whose products are, over the tokens, as near to q k as products of this rank
        come: with M, N the second moments of q and k, those of the largest singular values of M^1/2 N^1/2."""
        moments = self.moments[layer]
        (root_q, inverse_q), (root_k, inverse_k) = map(_roots, (moments[head], moments[self.num_heads + head // self.group]))
        u, values, vt = torch.linalg.svd(root_q @ root_k)
        share = values[:rank].sqrt()
        return tuple((inverse @ (vectors[:, :rank] * share)).float() for inverse, vectors in ((inverse_q, u), (inverse_k, vt.T)))


def _roots(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The square root of a positive semidefinite matrix, and its inverse where it has one."""
    values, vectors = torch.linalg.eigh(moment)
    root = values.clamp(min=1e-12 * max(float(values.max()), 1e-300)).sqrt()
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def neediest(lost: torch.Tensor, count: int) -> dict[int, list[int]]:
    """The heads that lose most of all layers, `count` at most, none that loses nothing: by layer, ascending."""
    heads = sorted((-value, layer, head) for layer, of in enumerate(lost.tolist()) for head, value in enumerate(of) if value > 0)
    found: dict[int, list[int]] = {}
    for _, layer, head in sorted(heads[:count], key=lambda x: x[1:]):
        found.setdefault(layer, []).append(head)
    return found


def to_json(lost: torch.Tensor, lookup_heads) -> dict:
    """heads.json of a gate's folder: null for layers whose window hides keys."""
    return {"lost": [[None if math.isnan(value) else round(value, 6) for value in layer] for layer in lost.tolist()],
            "lookup_heads": [list(lookup_heads.get(layer, ())) for layer in range(len(lost))]}
