"""Lists of key blocks (seer.BlockLists) to measure with.

A row is 64 queries; row r sees blocks 0 .. r + offset, the last one (the diagonal) only in part.
"""
import ctypes

import torch

import cases  # before seer, which it finds
import seer

_draw = ctypes.CDLL(next(path for path in torch.ops.loaded_libraries if path.endswith("libseer.so"))).seer_draw_lists
_draw.restype = ctypes.c_int64
_draw.argtypes = [ctypes.c_char_p, ctypes.c_double, *[ctypes.c_int] * 3, ctypes.c_uint64, *[ctypes.c_void_p] * 3]


def make_lists(kind, density, heads, rows, blocks, device, seed=0):
    """Lists of `kind` (random, gate) that keep about `density` of the visible blocks; the diagonal is always kept.

    seer/kernels/block_sparse_attn/drawn_lists.h says how they are drawn: `seer bench` measures the same ones.
    """
    begin = torch.empty(heads, rows, dtype=torch.int64)
    count = torch.empty(heads, rows, dtype=torch.int32)
    room = torch.empty(heads * (rows * (blocks - rows) + rows * (rows + 1) // 2), dtype=torch.int32)
    listed = _draw(kind.encode(), density, heads, rows, blocks, seed, *(x.data_ptr() for x in (begin, count, room)))
    if listed < 0:
        raise ValueError(f"lists {kind!r}: want random or gate")
    packing = seer.Packing.of_batch(1, rows * cases.BLOCK, blocks * cases.BLOCK, cases.BLOCK, device=device)
    return seer.BlockLists(begin.to(device), count.to(device), room[:listed].to(device, copy=True), packing)


def causal_mask_mod(offset):
    """mask_mod of queries that are the last ones of their keys; offset in tokens. FlexAttention, compiled, asks it in the
    listed blocks only."""
    def causal(b, h, q, k):
        return q + offset >= k
    return causal
