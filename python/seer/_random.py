"""The program's random numbers (seer/base/random.h): each depends on a seed, a stream and a counter alone."""
from __future__ import annotations

import math

import torch

from .fingerprint import MASK, mix64


class Random:
    """Draws one after another."""

    def __init__(self, seed: int, stream: int = 0):
        self.key, self.counter = mix64(mix64(seed & MASK) ^ stream), 0

    def below(self, n: int) -> int:
        """Uniform in [0, n)."""
        self.counter += 1
        return mix64(self.key ^ mix64(self.counter - 1)) * n >> 64

    def permutation(self, n: int) -> list[int]:
        order = list(range(n))
        for i in range(n, 1, -1):
            j = self.below(i)
            order[i - 1], order[j] = order[j], order[i - 1]
        return order


def normal(shape: tuple[int, ...], seed: int, stream: int) -> torch.Tensor:
    """Standard normal values, float64 of `shape` (Box-Muller, the first of each pair)."""
    count = math.prod(shape)
    key = mix64(mix64(seed & MASK) ^ stream)
    bits = _mix64(_mix64(torch.arange(2 * count)) ^ _signed(key))
    u, v = (_shifted(bits, 11).double() * 2.0 ** -53).view(count, 2).unbind(1)
    return ((-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()).view(shape)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shifted(x: torch.Tensor, n: int) -> torch.Tensor:
    """int64 to the right, as without a sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix64(x: torch.Tensor) -> torch.Tensor:
    """mix64 of int64, whose products wrap."""
    x = x + _signed(0x9e3779b97f4a7c15)
    x = (x ^ _shifted(x, 30)) * _signed(0xbf58476d1ce4e5b9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94d049bb133111eb)
    return x ^ _shifted(x, 31)
