"""seer: learned block-sparse attention, as functions of tensors.

Functions: block_sparse_attention, pooled_attention, gate_scores, select_blocks, attention (the last two and scores in one). What they
share: Packing (sequences of a batch), BlockLists (chosen blocks), Gate (a layer's weights). B sequences, S tokens, Hq and Hk heads of queries and keys, D head size, rows are blocks of queries.
"""
from ._load import load as _load

__version__ = _load()

from .gates import Gate, GateConfig, block_angles
from .lists import BlockLists
from .ops import GateVectors, attention, block_sparse_attention, gate_scores, pooled_attention, select_blocks
from .packing import Packing

__all__ = ["BlockLists", "Gate", "GateConfig", "GateVectors", "Packing", "attention", "block_angles",
           "block_sparse_attention", "gate_scores", "pooled_attention", "select_blocks"]
