"""Which key blocks each row of queries attends to."""
from __future__ import annotations

from typing import Callable, NamedTuple, Optional

import torch

from .packing import BLOCK, Packing, counted, form


class BlockLists(NamedTuple):
    """Row r of head h attends to the blocks list[begin[h, r] : begin[h, r] + count[h, r]], ascending.

    L heads, those of the queries or those of the keys (then shared by a group of query heads); R rows of all sequences. A
    row may be empty: its output is 0. Entries of `list` that belong to no row hold -1.
    """

    begin: torch.Tensor  # int64 [L, R]
    count: torch.Tensor  # int32 [L, R]
    list: torch.Tensor   # int32
    packing: Packing     # the sequences that the rows are of

    @classmethod
    def from_mask(cls, mask: torch.Tensor, packing: Optional[Packing] = None, block: int = BLOCK) -> BlockLists:
        """Of the blocks that a mask keeps: bool [L, R, N] with its `packing`, or [B, L, M, N] of plain tensors.

        Without a packing, sequences are as long as their blocks: M * block queries, N * block keys. A block whose keys the
        queries do not see is no harm: the causal rule masks it. On a GPU this waits for the mask.
        """
        if mask.dtype != torch.bool or mask.dim() not in (3, 4):
            raise ValueError(f"mask is {form(mask)}, want bool [B, heads, rows, blocks] or, packed, [heads, rows, blocks]")
        if packing is not None and not isinstance(packing, Packing):
            raise ValueError(f"BlockLists.from_mask: packing is of class {type(packing).__name__}, want seer.Packing (Packing.from_cu_seqlens)")
        if packing is None:
            if mask.dim() == 3:
                raise ValueError("a mask [heads, rows, blocks] of packed sequences wants their packing (seer.Packing)")
            batch, _, rows, blocks = mask.shape
            packing = Packing.of_batch(batch, rows * block, blocks * block, block, device=mask.device)
        if (mask.dim() == 4) != packing.is_batch:
            raise ValueError(f"mask is {list(mask.shape)}, but the packing is of {'plain' if packing.is_batch else 'packed'} tensors")
        flat = packing.join_rows(mask)
        if flat.shape[1:] != (packing.num_rows, packing.num_blocks) or mask.dim() == 4 and mask.shape[0] != len(packing.q_lens):
            raise ValueError(f"mask is {list(mask.shape)}, want {packing.num_rows} rows and {packing.num_blocks} blocks in all "
                             f"for {len(packing.q_lens)} sequences")
        count = flat.sum(-1, dtype=torch.int32)
        total = count.flatten().cumsum(0)
        begin = (total - count.flatten()).view(count.shape)
        return cls(begin, count, flat.nonzero()[:, -1].to(torch.int32), packing)

    def to_mask(self) -> torch.Tensor:
        """bool [B, L, M, N] of plain tensors, [L, R, N] of packed ones. On a GPU this waits for the lists."""
        packed = self.compact()
        heads, rows = packed.count.shape
        mask = torch.zeros(heads * rows, self.packing.num_blocks, dtype=torch.bool, device=packed.list.device)
        mask[packed.row_of_entries(), packed.list.long()] = True
        return self.packing.split_rows(mask.view(heads, rows, -1))

    @classmethod
    def from_flex(cls, block_mask: "torch.nn.attention.flex_attention.BlockMask", batch: Optional[int] = None,  # noqa: F821
                  heads: Optional[int] = None, strict: bool = True) -> BlockLists:
        """Of the blocks of FlexAttention's BlockMask, full and partial ones, for attention by the causal rule.

        `batch`, `heads`: to repeat a mask that was made for one sequence or one head (create_block_mask with None). ValueError: its
        mask_mod cuts blocks that the causal rule leaves whole, such as a window's edge; `strict=False` takes these as a whole.
        """
        from torch.nn.attention.flex_attention import BlockMask
        if not isinstance(block_mask, BlockMask):
            raise ValueError(f"BlockLists.from_flex: the mask is of class {type(block_mask).__name__}, want FlexAttention's BlockMask")
        q_block, k_block = block_mask.BLOCK_SIZE
        if q_block != k_block:
            raise ValueError(f"the BlockMask has blocks of {q_block} queries and {k_block} keys, want one size for both")
        q_len, k_len = block_mask.seq_lengths
        dense = block_mask.to_dense().bool()
        if strict and block_mask.full_kv_num_blocks is not None:
            full = cls._dense(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
            row, column = (torch.arange(n, device=dense.device) for n in dense.shape[-2:])
            # Whole: every query of the row sees every key, and neither is cut off by the end.
            whole = ((column + 1) * k_block <= row[:, None] * k_block + k_len - q_len + 1) & ((column + 1) * k_block <= k_len)
            cut = int((dense & ~full & whole & ((row[:, None] + 1) * k_block <= q_len)).sum())
            if cut:
                raise ValueError(f"BlockLists.from_flex: mask_mod cuts {cut} blocks that the causal rule leaves whole, and lists name whole blocks: "
                                 "strict=False takes these as a whole")
        batch, heads = batch or dense.shape[0], heads or dense.shape[1]
        if dense.shape[0] not in (1, batch) or heads % dense.shape[1]:
            raise ValueError(f"BlockLists.from_flex: the BlockMask is of {counted(dense.shape[0], 'sequence')} and {counted(dense.shape[1], 'head')}, which "
                             f"{counted(batch, 'sequence')} of {counted(heads, 'head')} cannot share")
        dense = dense.expand(batch, -1, -1, -1).repeat_interleave(heads // dense.shape[1], 1)
        return cls.from_mask(dense, Packing.of_batch(batch, q_len, k_len, k_block, device=dense.device))

    @staticmethod
    def _dense(count: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """bool [B, H, M, N] of a BlockMask's tables: the first `count` entries of a row are its blocks."""
        is_there = torch.arange(index.shape[-1], device=index.device) < count[..., None]
        found = torch.zeros(*index.shape[:-1], index.shape[-1] + 1, dtype=torch.bool, device=index.device)
        return found.scatter_(-1, torch.where(is_there, index, index.shape[-1]).long(), True)[..., :-1]

    def to_flex(self, heads: Optional[int] = None, mask_mod: Optional[Callable] = None,
                with_backward: bool = True) -> "torch.nn.attention.flex_attention.BlockMask":  # noqa: F821
        """FlexAttention's BlockMask [B, heads, q_len, k_len] of the same blocks and the causal rule, for plain tensors.

        `heads`: query heads (default: the lists'). `mask_mod`: asked within blocks that the causal rule cuts; the default
        also looks the block up, without which uncompiled flex_attention would see blocks that are not listed.
        `with_backward=False` leaves out the tables that only a backward reads.
        """
        from torch.nn.attention.flex_attention import BlockMask
        if not self.packing.is_batch:
            raise ValueError("FlexAttention's BlockMask is for sequences of one length: these lists are of packed tensors")
        batch, q_len, k_len, block = len(self.packing.q_lens), self.packing.q_lens[0], self.packing.k_lens[0], self.packing.block
        lists, offset = self.per_query_head(heads or self.count.shape[0]).compact(), k_len - q_len
        row = lists.row_of_entries()
        place = torch.arange(row.numel(), device=row.device) - lists.begin.flatten()[row]
        # Full blocks, of which every query sees every key: the first ones of a row, as lists ascend.
        is_full = (lists.list + 1) * block <= row % (lists.count.shape[1] // batch) * block + offset + 1
        full_count = torch.zeros(lists.count.numel(), dtype=torch.int32, device=row.device)
        full_count.index_add_(0, row, is_full.to(torch.int32))
        shape = *lists.count.shape, self.packing.num_blocks

        def table(of, at):
            index = torch.zeros(lists.count.numel(), shape[2], dtype=torch.int32, device=row.device)
            index[row[of], at[of]] = lists.list[of]
            return self.packing.split_rows(index.view(shape)).contiguous()

        def counts(x):
            return self.packing.split_rows(x.view(*shape[:2], 1)).squeeze(-1).contiguous()

        if mask_mod is None:
            mask = lists.to_mask()
            mask_mod = lambda b, h, q, k: mask[b, h, q // block, k // block] & (q + offset >= k)
        return BlockMask.from_kv_blocks(
            counts(lists.count.flatten() - full_count), table(~is_full, place - full_count[row]), counts(full_count),
            table(is_full, place), BLOCK_SIZE=block, mask_mod=mask_mod, seq_lengths=(q_len, k_len),
            compute_q_blocks=with_backward)

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(count [L, R], table [L, R, longest list]), int32: a row's blocks come first, zeros follow."""
        packed = self.compact()
        heads, rows = packed.count.shape
        longest = int(packed.count.max()) if packed.count.numel() else 0
        table = torch.zeros(heads * rows, longest, dtype=torch.int32, device=packed.list.device)
        row = packed.row_of_entries()
        table[row, torch.arange(packed.listed, device=row.device) - packed.begin.flatten()[row]] = packed.list
        return packed.count, table.view(heads, rows, longest)

    def compact(self) -> BlockLists:
        """The same rows, one after another in `list` without a gap."""
        count = self.count.flatten().long()
        begin = count.cumsum(0) - count
        if self.list.numel() == int(count.sum()) and torch.equal(begin, self.begin.flatten()):
            return self
        row = torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count)
        at = self.begin.flatten()[row] + torch.arange(row.numel(), device=row.device) - begin[row]
        return self._replace(begin=begin.view(self.begin.shape), list=self.list[at])

    def row_of_entries(self) -> torch.Tensor:
        """For every entry of compact lists the row, over all heads, that it belongs to."""
        count = self.count.flatten().long()
        return torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count)

    def per_query_head(self, heads: int) -> BlockLists:
        """The same lists, one for each of `heads` query heads."""
        own = self.count.shape[0]
        if heads == own:
            return self
        if heads % own:
            raise ValueError(f"lists of {counted(own, 'head')} cannot be shared by {counted(heads, 'query head')}")
        repeat = lambda x: x.repeat_interleave(heads // own, 0)
        return self._replace(begin=repeat(self.begin), count=repeat(self.count))

    @property
    def listed(self) -> int:
        """Listed blocks of all heads and rows. On a GPU this waits for the lists."""
        return int(self.count.sum())

    def density(self) -> float:
        """Share of the blocks visible to the rows that is listed. On a GPU this waits for the lists."""
        visible = int(self.packing.visible().sum()) * self.count.shape[0]
        return self.listed / visible if visible else 1.0
