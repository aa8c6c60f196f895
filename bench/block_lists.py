"""Lists of key blocks, built with torch on any device, and the forms that other libraries want.

`Lists` is what seer takes: begin [L, R] int64, count [L, R] int32, list int32, rows packed one after another and
ascending. A row is 64 queries; row r sees blocks 0 .. r + offset, the last one (the diagonal) only in part.
"""
import typing

import torch

LOCAL, SINK = 4, 1  # blocks that a gate's lists always keep: the most recent, the first


class Lists(typing.NamedTuple):
    begin: torch.Tensor
    count: torch.Tensor
    list: torch.Tensor

    @property
    def listed(self):
        """Listed blocks of all heads."""
        return self.list.numel()


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
    return Lists(begin, count.to(torch.int32), torch.cat(lists))


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


def row_of_entries(lists):
    """For every entry of `list` the row (over all heads) that it belongs to. Rows must be packed, as here."""
    count = lists.count.flatten().long()
    return torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count)


def place_of_entries(lists):
    """For every entry of `list` its place within its row."""
    return torch.arange(lists.listed, device=lists.list.device) - lists.begin.flatten()[row_of_entries(lists)]


def to_mask(lists, blocks):
    """The map of listed blocks, bool [L, R, N]."""
    heads, rows = lists.count.shape
    mask = torch.zeros(heads * rows, blocks, dtype=torch.bool, device=lists.list.device)
    mask[row_of_entries(lists), lists.list.long()] = True
    return mask.view(heads, rows, blocks)


def per_query_head(lists, heads):
    """The same lists, one for each of `heads` query heads."""
    group = heads // lists.count.shape[0]
    if group == 1:
        return lists
    count = lists.count.repeat_interleave(group, 0)
    long = count.flatten().long()
    begin = (long.cumsum(0) - long).view_as(count)
    per_head = lists.list.split(lists.count.sum(1).tolist())
    return Lists(begin, count, torch.cat([part for part in per_head for _ in range(group)]))


def padded(lists):
    """(count [H, R], table [H, R, longest list]), int32: a row's list comes first, zeros follow."""
    heads, rows = lists.count.shape
    table = torch.zeros(heads * rows, int(lists.count.max()), dtype=torch.int32, device=lists.list.device)
    table[row_of_entries(lists), place_of_entries(lists)] = lists.list
    return lists.count, table.view(heads, rows, -1)


def flex_tables(lists, blocks):
    """What BlockMask.from_kv_blocks takes: (partial count, partial index, full count, full index), int32.

    Partial blocks are those on the diagonal, where the causal rule cuts; all others are full. Every query head needs
    lists of its own (`per_query_head`): FlexAttention maps query head h to list h modulo the lists.
    """
    heads, rows = lists.count.shape
    device = lists.list.device
    row = row_of_entries(lists)
    diagonal = row % rows + (blocks - rows)
    is_full = lists.list < diagonal
    count = lists.count.view(1, heads, rows)
    full_count = torch.zeros(heads * rows, dtype=torch.int32, device=device)
    full_count.index_add_(0, row, is_full.to(torch.int32))
    full_count = full_count.view(1, heads, rows)
    place = place_of_entries(lists)  # lists ascend, so a row's full blocks come first and keep their places
    full_index = torch.zeros(heads * rows, blocks, dtype=torch.int32, device=device)
    full_index[row[is_full], place[is_full]] = lists.list[is_full]
    partial_index = torch.zeros(heads * rows, blocks, dtype=torch.int32, device=device)
    partial_index[row[~is_full], 0] = lists.list[~is_full]
    shape = (1, heads, rows, blocks)
    return count - full_count, partial_index.view(shape), full_count, full_index.view(shape)


def block_mask(lists, blocks, mask_mod):
    """A BlockMask of these lists. Without the transposed tables, which only a backward reads."""
    from torch.nn.attention.flex_attention import BlockMask
    rows = lists.count.shape[1]
    return BlockMask.from_kv_blocks(*flex_tables(lists, blocks), BLOCK_SIZE=64, mask_mod=mask_mod,
                                    seq_lengths=(rows * 64, blocks * 64), compute_q_blocks=False)


def causal_mask_mod(offset):
    """mask_mod of queries that are the last ones of their keys; offset in tokens."""
    def causal(b, h, q, k):
        return q + offset >= k
    return causal
