"""One forward pass of a model: which tokens of the batch belong to which sequence. All its layers share it."""
from __future__ import annotations

from typing import Optional

import torch

from .gates import block_angles
from .packing import Packing


class Unsupported(ValueError):
    """What sparse attention cannot compute and dense attention can. `cause`: one word for all calls alike."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


class Pass:
    """Tensors of the model have `batch` rows of `tokens` queries, the last of `columns` keys.

    `sequences`: (row, first column, one past the last) of each, real tokens only; None: not looked at, as every layer is dense.
    """

    def __init__(self, batch: int, tokens: int, columns: int, mask: Optional[torch.Tensor]):
        self.batch, self.tokens, self.columns, self.mask = batch, tokens, columns, mask
        self.sequences: Optional[list[tuple[int, int, int]]] = None
        self.is_packed = False
        self.shifts: Optional[list[int]] = None  # by sequence: the position of its first token; None: 0 everywhere, or nothing asks
        self.lists: dict = {}         # by layer: what was chosen, or is to be taken
        self.is_sparse = False        # some layer chooses blocks
        self.keeps_lists = False      # for a recording, or for a layer that runs again in a backward
        self.learned: Optional[dict] = None  # by layer: what Learning.loss gave; None: gates do not learn
        self.is_sharded = False       # weights are (FSDP2)
        self._devices: dict = {}
        self._angles: dict = {}

    @property
    def past(self) -> int:
        return self.columns - self.tokens

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, as far as they are known; padding counts where they are not."""
        return self.columns if self.sequences is None else max([end - begin for _, begin, end in self.sequences], default=0)

    def find_sequences(self) -> None:
        """From the mask. Unsupported: it hides other tokens than padding at the ends. On a GPU this waits for the mask."""
        if self.mask is None:
            self.sequences = [(row, 0, self.columns) for row in range(self.batch)]
            return
        count, at = self.mask.sum(1), torch.arange(self.columns, device=self.mask.device)
        last = torch.where(self.mask, at, -1).amax(1) + 1
        first = torch.where(self.mask, at, self.columns).amin(1).minimum(last)
        found = torch.stack([first, last, count], 1).tolist()
        for row, (begin, end, real) in enumerate(found):
            if end - begin != real:
                raise Unsupported("mask", f"attention_mask of row {row} has {end - begin - real} zeros between its ones, want padding on the "
                                 "left or the right only (seer.attach)")
        self.sequences = [(row, begin, end) for row, (begin, end, _) in enumerate(found)]

    def pack(self, lengths: list[list[int]]) -> None:
        """Several sequences in each row, one after another."""
        self.is_packed, self.sequences = True, []
        for row, lens in enumerate(lengths):
            begin = 0
            for n in lens:
                self.sequences.append((row, begin, begin + n))
                begin += n

    def find_shifts(self, positions: Optional[torch.Tensor]) -> None:
        """From position_ids [B or 1, tokens], for which this waits on a GPU; None: they are the columns, padding counts."""
        columns = [min(max(begin, self.past), self.columns - 1) for _, begin, _ in self.sequences]  # of a token of each that is given now
        found = columns
        if positions is not None:
            found = positions.expand(self.batch, -1)[[row for row, _, _ in self.sequences], [at - self.past for at in columns]].tolist()
        shifts = [position - (at - begin) if end > begin else 0 for position, at, (_, begin, end) in zip(found, columns, self.sequences)]
        self.shifts = shifts if any(shifts) else None

    # ---- Parts of the sequences, as packed tensors ------------------------------------------------

    def heads(self, block: int) -> list[int]:
        """Queries of each sequence before its first block boundary, where a chunk begins off the grid of blocks."""
        out = []
        for _, begin, end in self.sequences:
            start = max(begin, self.past) - begin
            out.append(min(-start % block, max(0, end - max(begin, self.past))))
        return out

    def part(self, which: str, block: int) -> Part:
        """"all" queries; those that come before a block boundary ("head"), or from it on ("rest")."""
        heads, spans = self.heads(block), []
        for (row, begin, end), head in zip(self.sequences, heads):
            first = max(begin, self.past)
            split = first + head
            q_begin, q_end = {"all": (first, max(first, end)), "head": (first, split), "rest": (split, max(split, end))}[which]
            spans.append((row, q_begin, q_end, begin, q_end if which == "head" else end))
        return Part(self, spans, block)

    def angles(self, key, rotary, packing: Packing, device) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of a packing's rows by the model's rotary embedding as it is now; the same for all layers."""
        if (key, device) not in self._angles:
            made = block_angles(rotary.inv_freq, packing, rotary.attention_scaling)
            self._angles[key, device] = tuple(x.to(device) for x in made)
        return self._angles[key, device]

    def on(self, device, key, make):
        """What `make` gives, once for each device."""
        if (key, device) not in self._devices:
            self._devices[key, device] = make()
        return self._devices[key, device]


class Part:
    """Queries of the sequences, and the keys that they see. spans: (row, first query, end of queries, first key, end of keys),
    in columns of the keys."""

    def __init__(self, of: Pass, spans, block: int):
        self.of, self.block = of, block
        self.spans = spans
        self.q_lens = [q_end - q_begin for _, q_begin, q_end, _, _ in spans]
        self.k_lens = [k_end - k_begin for _, _, _, k_begin, k_end in spans]

    def packing(self, device) -> Packing:
        return Packing.from_lengths(self.q_lens, self.k_lens, self.block, device=device)

    def own(self, device) -> Packing:
        """Of the queries' tokens alone."""
        return Packing.from_lengths(self.q_lens, None, self.block, device=device)

    def queries(self, device) -> Optional[torch.Tensor]:
        """Their places in [batch * tokens]; None: all, in order."""
        shift = self.of.past
        return self._index(((row, q_begin - shift, q_end - shift) for row, q_begin, q_end, _, _ in self.spans), self.of.tokens, device)

    def keys(self, device) -> Optional[torch.Tensor]:
        """Places of the keys in [batch * columns]; None: all, in order."""
        return self._index(((row, k_begin, k_end) for row, _, _, k_begin, k_end in self.spans), self.of.columns, device)

    def _index(self, spans, width: int, device) -> Optional[torch.Tensor]:
        runs, end = [], 0
        whole = True
        for row, begin, stop in spans:
            begin, stop = row * width + begin, row * width + stop
            whole = whole and begin == end  # no &=: torch.compile makes invalid code of it
            end = stop
            runs.append(torch.arange(begin, stop))
        if whole and end == self.of.batch * width:
            return None
        return torch.cat(runs).to(device, non_blocking=True)


def flat(x: torch.Tensor, index: Optional[torch.Tensor]) -> torch.Tensor:
    """[B, S, H, D] -> packed [tokens, H, D] of the places in `index`, or of all: a view where that is possible."""
    x = x.flatten(0, 1)
    return x if index is None else x[index]


def turn_back(x: torch.Tensor, shifts: list[int], lens: list[int], inv_freq: torch.Tensor) -> torch.Tensor:
    """x [tokens, H, D] after RoPE, of sequences of `lens` tokens, at positions less by the `shifts` of their sequences."""
    shift = torch.cat([torch.full((n,), float(of)) for of, n in zip(shifts, lens)]).to(x.device, non_blocking=True)
    angle, half = shift[:, None, None] * inv_freq.to(x.device, torch.float32), inv_freq.numel()
    a, b, rest = x.float().split((half, half, x.shape[-1] - 2 * half), -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos + b * sin, b * cos - a * sin, rest], -1).to(x.dtype)


def sums_to_lengths(cu: torch.Tensor, batch: int, tokens: int) -> list[list[int]]:
    """Lengths of the sequences of the one row, of cu_seq_lens_q."""
    sums = cu.tolist()
    if batch != 1 or sums[0] != 0 or sums[-1] != tokens or any(b < a for a, b in zip(sums, sums[1:])):
        raise Unsupported("cu_seq_lens_q", f"seer: cu_seq_lens_q must rise from 0 to the {tokens} tokens of one row of sequences, got {sums[:8]}")
    return [[b - a for a, b in zip(sums, sums[1:])]]


def packed_lengths(positions: Optional[torch.Tensor], batch: int, tokens: int) -> Optional[list[list[int]]]:
    """Lengths of the sequences of each row where positions begin again; None: there is one in each."""
    if positions is None or positions.dim() != 2 or positions.shape[1] != tokens:
        return None
    starts = (positions[:, 1:] != positions[:, :-1] + 1).nonzero().tolist()
    if not starts:
        return None
    if positions.shape[0] != batch:  # one row for all
        starts = [[row, at] for row in range(batch) for _, at in starts]
    ends = [[at + 1 for of, at in starts if of == row] + [tokens] for row in range(batch)]
    return [[b - a for a, b in zip([0, *row], row)] for row in ends]
