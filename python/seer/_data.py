"""Sequences that gates are made from: of one dataset or of several by their weights, each checked before the model sees it."""
from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from typing import Optional, Sequence

import torch


class Sequences:
    """What rows of token ids must be; finds out their one length. `who` names the function that wants them, in errors."""

    def __init__(self, block: int, vocab_size: int, who: str):
        self.block, self.vocab_size, self.who = block, vocab_size, who
        self.length: Optional[int] = None

    def ids(self, row, name: str, index: int) -> torch.Tensor:
        """int64 [length], on the CPU. ValueError: it is something else."""
        where = f"{self.who}: sequence {index} of {name}"
        if hasattr(row, "keys"):
            if "input_ids" not in row:
                raise ValueError(f"{where} has the fields {', '.join(map(str, row))}, want input_ids")
            row = row["input_ids"]
        try:
            ids = torch.as_tensor(row)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{where} is a {type(row).__name__}, want token ids") from None
        if ids.dim() != 1 or ids.is_floating_point() or ids.shape[0] <= self.block or ids.shape[0] != (self.length or ids.shape[0]):
            wanted = self.length or f"more than a block of {self.block}"
            raise ValueError(f"{where} is {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}, want token ids, {wanted} in one axis")
        self.length, ids = ids.shape[0], ids.long().cpu()
        low, high = (int(x) for x in ids.aminmax())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"{where} has the token {low if low < 0 else high}, the model knows 0 to {self.vocab_size - 1}")
        return ids

    def warn_of_context(self, model_config) -> None:
        """Where sequences are longer than what the model was made for."""
        context = getattr(model_config, "max_position_embeddings", None)
        if context and self.length > context:
            warnings.warn(f"{self.who}: sequences have {self.length} tokens, the model was made for {context}")


def named(datasets, what: str, who: str) -> dict:
    """By names: one dataset alone is "the dataset"."""
    is_many = isinstance(datasets, dict)
    found = datasets if is_many else {f"the {what}": datasets}
    if not found:
        raise ValueError(f"{who}: no {what} is given")
    for name, dataset in found.items():
        if not hasattr(dataset, "__getitem__") or isinstance(dataset, str):
            raise ValueError(f"{who}: {name} is a {type(dataset).__name__}, want sequences by their number, dataset[i]")
        if hasattr(dataset, "__len__") and len(dataset) == 0:
            raise ValueError(f"{who}: {name} is empty")
    return found


class Mixture:
    """Sequences of datasets by their weights (PackedWindows::source() of seer/train/data/data.cc): next comes that of the
    dataset which is furthest behind its share."""

    def __init__(self, datasets, weights: Optional[Sequence[float]], form: Sequences):
        self.datasets, self.form = named(datasets, "dataset", form.who), form
        weights = [1.0] * len(self.datasets) if weights is None else list(weights)
        if len(weights) != len(self.datasets) or not all(math.isfinite(w) and w > 0 for w in weights):
            raise ValueError(f"{form.who}: weights are {weights}, want {len(self.datasets)} above 0, one for each dataset")
        self.weights = [weight / sum(weights) for weight in weights]
        self.sources: list[tuple[str, int]] = []  # of each sequence so far: whose, and how many it gave before
        self.given = dict.fromkeys(self.datasets, 0)
        self.first = {name: self._row(name, 0) for name in self.datasets}

    def _row(self, name: str, index: int) -> torch.Tensor:
        dataset = self.datasets[name]
        return self.form.ids(dataset[index % len(dataset) if hasattr(dataset, "__len__") else index], name, index)

    def batch(self, first: int, count: int) -> torch.Tensor:
        """Sequences `first` and the `count` - 1 behind it, int64 [count, length]."""
        while len(self.sources) < first + count:
            behind = {name: weight * (len(self.sources) + 1) - self.given[name] for name, weight in zip(self.datasets, self.weights)}
            name = max(behind, key=behind.get)
            self.sources.append((name, self.given[name]))
            self.given[name] += 1
        return torch.stack([self._row(*source) for source in self.sources[first:first + count]])

    def identity(self) -> dict:
        return {name: {"weight": weight, "first": digest(self.first[name]),
                       **({"sequences": len(dataset)} if hasattr(dataset, "__len__") else {})}
                for (name, dataset), weight in zip(self.datasets.items(), self.weights)}


def held_out(datasets, most: int, form: Sequences) -> dict[str, list[torch.Tensor]]:
    """The first `most` sequences of each, by the ends of metrics' names: "_<name>", or "" of one dataset alone."""
    if datasets is None:
        return {}
    found = {}
    for name, dataset in named(datasets, "held-out dataset", form.who).items():
        rows = (dataset[i] for i in range(len(dataset))) if hasattr(dataset, "__len__") else iter(dataset)
        found[f"_{name}" if isinstance(datasets, dict) else ""] = [form.ids(row, name, i) for i, row in enumerate(itertools.islice(rows, most))]
        if not any(found.values()):
            raise ValueError(f"{form.who}: {name} is empty")
    return found


def digest(*tensors: torch.Tensor) -> str:
    """Of their bytes."""
    found = hashlib.sha256()
    for x in tensors:
        found.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:32]
