"""seer: learned block-sparse attention, as functions of tensors and on transformers' models as they are.

Functions: block_sparse_attention, pooled_attention, pooled_map, gate_scores, lookup_scores, select_blocks, and attention, which scores,
selects and attends in one. What they share: Packing (sequences of a batch), BlockLists (chosen blocks), Gate (a layer's weights). Models:
attach, detach, record_lists, replay_lists, save_gates, plot_heads. Training: distill, find_lookup_heads, PackedWindows, and
trainer.GateTrainer, which imports transformers; evaluation: lm_eval. B sequences, S tokens, Hq and Hk heads of queries and keys, D head size, rows are blocks of queries.
"""
from ._load import load as _load

__version__ = _load()

from .attach import attach, detach, record_lists, replay_lists
from .distill import distill
from .gates import Gate, GateConfig, block_angles
from .lists import BlockLists
from .lookup_heads import find_lookup_heads
from .ops import GateVectors, Lookups, attention, block_sparse_attention, gate_scores, lookup_scores, pooled_attention, pooled_map, select_blocks
from .packing import Packing
from .pictures import plot_heads
from .saving import save_gates
from .windows import PackedWindows

__all__ = ["BlockLists", "Gate", "GateConfig", "GateVectors", "Lookups", "PackedWindows", "Packing", "attach", "attention",
           "block_angles", "block_sparse_attention", "detach", "distill", "find_lookup_heads", "gate_scores", "lookup_scores",
           "plot_heads", "pooled_attention", "pooled_map", "record_lists", "replay_lists", "save_gates", "select_blocks"]
