"""Windows of texts for distillation, in the order in which `seer distill` takes them."""
from __future__ import annotations

import numbers
from typing import Any, Iterable, Optional

import torch

from ._random import Random
from .fingerprint import mix64
from .packing import counted

# Streams of random numbers, one for each use (seer/train/data/data.cc).
_DOCUMENT_ORDER, _WINDOW_ORDER = 0x646f63756d656e74, 0x6f72646572


class PackedWindows(torch.utils.data.Dataset):
    """Windows of `length` tokens of texts, int64 [length]; `windows[i]` for every i >= 0, as epochs follow one another.

    Each epoch joins the texts ([BOS] text EOS) in a drawn order to a ring, cuts it from a drawn place on (a rest is left out)
    and gives the pieces in a drawn order, BOS first: no token is seen twice in an epoch. Window i of a seed is what
    `seer distill --seed` takes from a file with these documents; of several files, it draws the second one's by seed + 1, and so on.
    seed None: the texts once, in their order, which is what it validates on. ValueError: no EOS, or fewer tokens than a window.
    """

    def __init__(self, texts: Iterable[str], tokenizer: Any, length: int, seed: Optional[int] = 1):
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if eos is None:
            raise ValueError("seer.PackedWindows: the tokenizer has no EOS token, which keeps texts apart: set tokenizer.eos_token")
        if isinstance(texts, str):
            raise ValueError("seer.PackedWindows: texts is one string, want a list of texts: [text]")
        if not isinstance(length, numbers.Integral) or length < 2:
            raise ValueError(f"seer.PackedWindows: length is {length!r}, want a whole number, 2 or more")
        if seed is not None and not isinstance(seed, numbers.Integral):
            raise ValueError(f"seer.PackedWindows: seed is {seed!r}, want a whole number, or None")
        self.bos = [] if bos is None else [bos]
        self.length, self.seed = length - len(self.bos), None if seed is None else mix64(seed)
        tokens = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts)
        self.documents = [torch.tensor([*self.bos, *ids, eos], dtype=torch.int32) for ids in tokens if ids]
        self.size = sum(map(len, self.documents))
        if self.size < self.length:
            raise ValueError(f"seer.PackedWindows: the texts have {counted(self.size, 'token')}, fewer than one window of {length}: give more text "
                             "or a smaller length")
        self.epoch = -1

    def __getitem__(self, index: int) -> torch.Tensor:
        epoch, at = divmod(index, self.size // self.length)
        if index < 0 or self.seed is None and epoch:
            raise IndexError(f"seer.PackedWindows: window {index}, want 0 {f'to {self.size // self.length - 1}' if self.seed is None else 'or more'}")
        if epoch != self.epoch:
            self._begin(epoch)
        begin = (self.first + self.order[at] * self.length) % self.size
        piece = self.stream[begin:begin + self.length]
        parts = torch.tensor(self.bos, dtype=torch.int32), piece, self.stream[:self.length - len(piece)]
        return torch.cat(parts).long()

    def _begin(self, epoch: int) -> None:
        if self.seed is None:
            self.stream, self.first, self.order, self.epoch = torch.cat(self.documents), 0, range(self.size // self.length), epoch
            return
        documents = Random(self.seed, mix64(_DOCUMENT_ORDER) + epoch).permutation(len(self.documents))
        self.stream = torch.cat([self.documents[i] for i in documents])
        random = Random(self.seed, mix64(_WINDOW_ORDER) + epoch)
        self.first = random.below(self.size)
        self.order = random.permutation(self.size // self.length)
        self.epoch = epoch
