"""Gate vectors of the key blocks of a cache, kept beside its keys, so that later chunks of a prompt can be scored.

A cache that a model with gates fills becomes one of a subclass of its class, which keeps these in step with reordered, repeated and
selected rows. It can be copied (copy.deepcopy) and cropped as before.
"""
from __future__ import annotations

import functools
from typing import Callable, Optional

import torch

from ._passes import Unsupported


class LayerKeys:
    """Of one layer. Each row of the batch holds one sequence, whose real tokens begin at column `first`.

    vectors[row]: float32 [blocks, heads, d] of its complete blocks. raw[row]: keys before RoPE [tokens, Hk, D] from token
    raw_begin[row] on, at least those of the block that is not complete. Tokens up to column `seen` are in these; later ones, of
    calls that were dense, are in `pending`, [B, t, Hk, D] each.
    """

    def __init__(self):
        self.vectors: list[torch.Tensor] = []
        self.raw: list[torch.Tensor] = []
        self.raw_begin: list[int] = []
        self.first: list[int] = []
        self.seen = 0
        self.pending: list[torch.Tensor] = []

    @property
    def columns(self) -> int:
        return self.seen + sum(x.shape[1] for x in self.pending)

    def crop(self, columns: int) -> None:
        """To fewer columns. Tokens of a block that was complete are not there any more: `take` finds that."""
        while self.pending and self.columns > columns:
            keep = self.pending[-1].shape[1] - (self.columns - columns)
            last = self.pending.pop()
            if keep > 0:
                self.pending.append(last[:, :keep])
        self.seen = min(self.seen, columns)

    def select(self, rows: list[int]) -> None:
        """Row i becomes what row rows[i] was."""
        for name in ("vectors", "raw", "raw_begin", "first"):
            of = getattr(self, name)
            if of:
                setattr(self, name, [of[row] for row in rows])
        self.pending = [x[rows] for x in self.pending]

    def take(self, block: int, spans: list[tuple[int, int, int]], new: torch.Tensor,
             make: Callable[[list[int], list[torch.Tensor]], list[torch.Tensor]]) -> list[torch.Tensor]:
        """Vectors of all key blocks of each sequence, and keeps what later calls need.

        spans: (row, first column, one past the last) after `new` [B, t, Hk, D], the keys before RoPE of the last columns. make:
        (first block of each sequence, its tokens from there on) -> their vectors.
        """
        past = self.columns
        if not self.first:
            self.first = [begin for _, begin, _ in spans]
            self.vectors, self.raw = [None] * len(spans), [None] * len(spans)
            self.raw_begin = [0] * len(spans)
        starts, tokens = [], []
        for row, begin, end in spans:
            known = max(0, min(self.seen, end) - begin)  # tokens in vectors and raw
            done = min(0 if self.vectors[row] is None else len(self.vectors[row]), known // block)
            parts, at = [], done * block
            if known > at:
                if self.raw_begin[row] > at:
                    raise Unsupported("unread cache", f"the cache was cropped to {known} tokens of row {row}, within a block whose keys are no longer "
                                     f"there (seer.attach): crop it to a multiple of {block} tokens, or copy it before it grows")
                parts.append(self.raw[row][at - self.raw_begin[row]:known - self.raw_begin[row]])
            column = self.seen
            for x in (*self.pending, new):
                parts.append(x[row, max(0, begin - column):max(0, end - column)])
                column += x.shape[1]
            starts.append(done)
            tokens.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        made, out = make(starts, tokens), []
        for (row, begin, end), start, raw, vectors in zip(spans, starts, tokens, made):
            every = vectors if start == 0 else torch.cat([self.vectors[row][:start], vectors])
            complete = (end - begin) // block
            keep = max(start, complete - 1) * block  # the last complete block, too: an assistant's guesses are taken back
            self.vectors[row] = every[:complete]
            self.raw[row], self.raw_begin[row] = raw[keep - start * block:].clone(), keep
            out.append(every)
        self.seen, self.pending = past + new.shape[1], []
        return out


class GateKeys:
    """Of all layers of a cache."""

    def __init__(self):
        self.layers: dict[int, LayerKeys] = {}

    def select(self, rows: list[int]) -> None:
        for layer in self.layers.values():
            layer.select(rows)


@functools.cache
def _following(cls: type) -> type:
    class Following(cls):
        def reorder_cache(self, beam_idx):
            super().reorder_cache(beam_idx)
            self.gate_keys.select(beam_idx.tolist())

        def batch_select_indices(self, indices):
            super().batch_select_indices(indices)
            self.gate_keys.select(torch.as_tensor(indices).tolist())

        def batch_repeat_interleave(self, repeats):
            super().batch_repeat_interleave(repeats)
            rows = {len(layer.first) or (layer.pending[0].shape[0] if layer.pending else 0)
                    for layer in self.gate_keys.layers.values()}
            for count in rows - {0}:
                self.gate_keys.select([row for row in range(count) for _ in range(repeats)])

        def reset(self):
            super().reset()
            self.gate_keys = GateKeys()

        def __reduce__(self):
            return _unfilled, (cls,), self.__dict__

    Following.__name__, Following.__qualname__ = cls.__name__, cls.__qualname__
    Following.follows_gates = True
    return Following


def _unfilled(cls: type):
    """What pickle fills."""
    return object.__new__(_following(cls))


def layer_keys(cache, layer: int, past: int, batch: int) -> Optional[LayerKeys]:
    """Those of a cache that holds `past` columns before this call; made where it holds none. None: they are missing, as others
    filled the cache."""
    if not getattr(cache, "follows_gates", False):
        if past:
            return None
        cache.__class__ = _following(type(cache))
        cache.gate_keys = GateKeys()
    keys = cache.gate_keys.layers
    if past == 0:
        keys[layer] = LayerKeys()
    elif layer in keys and keys[layer].columns > past:
        keys[layer].crop(past)
    found = keys.get(layer)
    return found if found is not None and found.columns == past else None
