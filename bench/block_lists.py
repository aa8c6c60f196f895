"""Lists of key blocks (seer.BlockLists) to measure with, built with torch on any device.

A row is 64 queries; row r sees blocks 0 .. r + offset, the last one (the diagonal) only in part.
"""
import torch

import cases  # before seer, which it finds
import seer

LOCAL, SINK = 4, 1  # blocks that a gate's lists always keep: the most recent, the first


def make_lists(kind, density, heads, rows, blocks, device, seed=0):
    """Lists of `kind` that keep about `density` of the visible blocks; the diagonal is always kept.

    random: each visible block with that probability.
    gate:   a sink, a local window, columns that every row of a head keeps, and scattered blocks; the budget differs
            between heads and between rows.
    Head by head, so that no more than one head's map is in memory.
    """
    generator = torch.Generator(device).manual_seed(seed)
    draw = lambda *size: torch.rand(*size, device=device, generator=generator)
    last = torch.arange(rows, device=device)[:, None] + (blocks - rows)
    column = torch.arange(blocks, device=device)[None]
    visible, diagonal = column <= last, column == last
    # Evenly spread, in random order: the mean over heads stays the wish.
    order = torch.randperm(heads, device=device, generator=generator)
    head_share = (order + 0.5) / heads * 2 - 1
    counts, lists = [], []
    for h in range(heads):
        if density >= 1:
            mask = visible
        elif kind == "random":
            mask = ((draw(rows, blocks) < density) & visible) | diagonal
        elif kind == "gate":
            mask = _gate_mask(density, head_share[h], last, column, visible, draw)
        else:
            raise ValueError(f"lists {kind!r}: want random or gate")
        counts.append(mask.sum(1))
        lists.append(mask.nonzero()[:, 1].to(torch.int32))
    count = torch.stack(counts)
    begin = (count.flatten().cumsum(0) - count.flatten()).view_as(count)
    packing = seer.Packing.of_batch(1, rows * cases.BLOCK, blocks * cases.BLOCK, cases.BLOCK, device=device)
    return seer.BlockLists(begin, count.to(torch.int32), torch.cat(lists), packing)


def _gate_mask(density, head_share, last, column, visible, draw):
    """One head's map [R, N]. The budgets lie around `density` and never leave 0 .. 1."""
    spread = lambda mean, share: mean + torch.minimum(mean, 1 - mean) * 0.6 * share
    of_head = spread(torch.full_like(head_share, density), head_share)
    of_row = spread(of_head.expand(last.shape), draw(*last.shape) * 2 - 1)
    vertical = draw(*column.shape) < 0.4 * of_head
    fixed = ((last - column < LOCAL) | (column < SINK) | vertical) & visible
    kept, seen = fixed.sum(1, keepdim=True), last + 1
    wanted = (of_row * seen - kept).clamp(min=0) / (seen - kept).clamp(min=1)
    return fixed | ((draw(*visible.shape) < wanted) & visible)


def causal_mask_mod(offset):
    """mask_mod of queries that are the last ones of their keys; offset in tokens. FlexAttention, compiled, asks it in the
    listed blocks only."""
    def causal(b, h, q, k):
        return q + offset >= k
    return causal
