"""Sequences of a batch, packed one after another: the prefix sums that every op takes."""
from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import torch

BLOCK = 64  # tokens of a block where nothing else is said
BLOCKS = tuple(range(16, 129, 16))  # what the ops take


def ceil_div(n: int, unit: int) -> int:
    return -(-n // unit)


def form(x) -> str:
    """Of a tensor, for messages: float32 [2, 3]."""
    if isinstance(x, torch.Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    return repr(x) if x is None or isinstance(x, (bool, int, float, str)) else f"of class {type(x).__name__}"


def counted(count: int, noun: str, many: str = "") -> str:
    """For messages: 1 step, 2 steps. `many`: where that is not the noun with an s."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def _sums(lens: Sequence[int], unit: int) -> list[int]:
    sums = [0]
    for n in lens:
        sums.append(sums[-1] + ceil_div(n, unit))
    return sums


class Packing(NamedTuple):
    """Where sequences, their rows (blocks of queries) and key blocks begin.

    The queries of a sequence are its last tokens: query i sees key j if j <= i + k_len - q_len. Made by `of_batch`,
    `from_lengths` or `from_cu_seqlens`; the tensors are int32 [sequences + 1], on the device of the data.
    """

    q_lens: tuple[int, ...]  # query tokens of each sequence
    k_lens: tuple[int, ...]  # its key tokens
    cu_q: torch.Tensor       # prefix sums of the query tokens
    cu_k: torch.Tensor       # of the key tokens
    cu_rows: torch.Tensor    # of rows
    cu_blocks: torch.Tensor  # of key blocks
    block: int = BLOCK       # tokens of a key block: 16 to 128, a multiple of 16
    block_q: int = BLOCK     # tokens of a row
    is_batch: bool = False   # of plain tensors [B, S, H, D]: scores and masks have an axis for sequences

    @classmethod
    def from_lengths(cls, q_lens: Sequence[int], k_lens: Optional[Sequence[int]] = None, block: int = BLOCK,
                     block_q: Optional[int] = None, device: Optional[torch.device] = None) -> Packing:
        """Of lengths in tokens, on the host. `k_lens`: as `q_lens` where not given."""
        q_lens = tuple(int(n) for n in q_lens)
        k_lens = q_lens if k_lens is None else tuple(int(n) for n in k_lens)
        block_q = block if block_q is None else block_q
        _check(q_lens, k_lens, block, block_q)
        units = ((q_lens, 1), (k_lens, 1), (q_lens, block_q), (k_lens, block))
        sums = torch.tensor([_sums(lens, unit) for lens, unit in units], dtype=torch.int32)
        if device is not None:
            sums = sums.to(device, non_blocking=True)
        return cls(q_lens, k_lens, *sums.unbind(), block, block_q)

    @classmethod
    def of_batch(cls, batch: int, q_len: int, k_len: Optional[int] = None, block: int = BLOCK,
                 block_q: Optional[int] = None, device: Optional[torch.device] = None) -> Packing:
        """Of plain tensors [batch, q_len, heads, features]. Nothing waits for the device or is copied to it."""
        k_len = q_len if k_len is None else k_len
        block_q = block if block_q is None else block_q
        _check((q_len,), (k_len,), block, block_q)
        at = torch.arange(batch + 1, dtype=torch.int32, device=device)
        q, rows = at * q_len, at * ceil_div(q_len, block_q)
        same = k_len == q_len
        return cls((q_len,) * batch, (k_len,) * batch, q, q if same else at * k_len, rows,
                   rows if same and block == block_q else at * ceil_div(k_len, block), block, block_q, True)

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens_q: torch.Tensor, cu_seqlens_k: Optional[torch.Tensor] = None, block: int = BLOCK,
                        block_q: Optional[int] = None) -> Packing:
        """Of prefix sums of tokens, integers [sequences + 1]. On a GPU this waits for them: make it once, and hand it to
        every call."""
        lens = []
        for name, cu in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
            if cu is None:
                continue
            if not isinstance(cu, torch.Tensor) or cu.dim() != 1 or cu.numel() == 0 or cu.is_floating_point():
                raise ValueError(f"{name} is {form(cu)}, want prefix sums of tokens, integers [sequences + 1]")
            sums = cu.tolist()
            if sums[0] != 0 or any(b < a for a, b in zip(sums, sums[1:])):
                raise ValueError(f"{name} must begin with 0 and never fall, got {sums if len(sums) < 9 else sums[:8] + ['...']}")
            lens.append([b - a for a, b in zip(sums, sums[1:])])
        return cls.from_lengths(*lens, block=block, block_q=block_q, device=cu_seqlens_q.device)

    @property
    def num_rows(self) -> int:
        """Rows of all sequences."""
        return sum([ceil_div(n, self.block_q) for n in self.q_lens])

    @property
    def total_blocks(self) -> int:
        """Key blocks of all sequences."""
        return sum([ceil_div(n, self.block) for n in self.k_lens])

    @property
    def num_blocks(self) -> int:
        """Key blocks of the longest sequence."""
        return max([0, *[ceil_div(n, self.block) for n in self.k_lens]])

    def cu(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """cu_q, cu_k, cu_rows, cu_blocks, as the ops take them."""
        return self.cu_q, self.cu_k, self.cu_rows, self.cu_blocks

    def with_blocks(self, block: int, block_q: Optional[int] = None) -> Packing:
        """The same sequences in blocks of another size."""
        block_q = block if block_q is None else block_q
        if (block, block_q) == (self.block, self.block_q):
            return self
        made = Packing.from_lengths(self.q_lens, self.k_lens, block, block_q, self.cu_q.device)
        return made._replace(is_batch=self.is_batch)

    def visible(self) -> torch.Tensor:
        """bool [rows, num_blocks]: some query of the row sees some key of the block."""
        last = []  # the last block that each row sees; -1: none
        for nq, nk in zip(self.q_lens, self.k_lens):
            ends = range(self.block_q, nq + self.block_q, self.block_q)
            last += [(min(end, nq) - 1 + nk - nq) // self.block for end in ends]
        blocks = torch.arange(self.num_blocks, device=self.cu_q.device)
        return blocks <= torch.tensor(last, dtype=torch.int64, device=self.cu_q.device)[:, None]

    def split_rows(self, x: torch.Tensor) -> torch.Tensor:
        """[heads, rows, blocks] -> [B, heads, rows of a sequence, blocks] where the tensors are plain, else as it is."""
        if not self.is_batch:
            return x
        batch = len(self.q_lens)
        return x.view(x.shape[0], batch, x.shape[1] // max(batch, 1), x.shape[2]).transpose(0, 1)

    def join_rows(self, x: torch.Tensor) -> torch.Tensor:
        """What `split_rows` undoes."""
        return x.transpose(0, 1).flatten(1, 2) if self.is_batch else x


def _check(q_lens: Sequence[int], k_lens: Sequence[int], block: int, block_q: int) -> None:
    for name, value in (("block", block), ("block_q", block_q)):
        if value < 1:
            raise ValueError(f"{name} is {value}, want 1 token or more")
    if len(q_lens) != len(k_lens):
        raise ValueError(f"{len(q_lens)} query lengths and {len(k_lens)} key lengths, want as many")
    for b, (nq, nk) in enumerate(zip(q_lens, k_lens)):
        if nq < 0 or nk < 0:
            raise ValueError(f"sequence {b} has {nq} queries and {nk} keys, want 0 or more")
