"""The operations as functions of tensors, on CPUs and GPUs.

Tensors are plain, [B, S, H, D], or packed, [tokens of all sequences, H, D] with `packing` (seer.Packing, or prefix sums of
tokens as FlashAttention's cu_seqlens). q may have fewer tokens than k: they are the last ones of their sequence. Hq query
heads share Hk key heads. Types: float32, float16, bfloat16 (block_sparse_attention: float64 on a CPU, to check gradients); under
autocast, what it says.
"""
from __future__ import annotations

import math
import numbers
from typing import NamedTuple, Optional, Sequence, Union

import torch

from .lists import BlockLists
from .packing import BLOCK, BLOCKS, Packing, counted, form

Sequences = Union[Packing, torch.Tensor, None]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = "float32, float16 or bfloat16"
RULES_BY_SHARE = ("nz_ratio", "head_budget")
STRENGTHS = {"threshold": 1.0, "top_p": 1.0, "row_budget": 1e15}  # of the other rules: the largest
MOST_TOKENS, MOST_BLOCKS = 1 << 28, 1 << 24  # of a sequence (seer/kernels/size_limits.h)


class GateVectors(NamedTuple):
    """What a gate makes of queries and keys before RoPE: the vectors whose products are scores."""

    q: torch.Tensor  # float32 [rows, Hq, d]
    k: torch.Tensor  # float32 [key blocks of all sequences, Hq or Hk, d]
    packing: Packing


class Lookups(NamedTuple):
    """What lookup heads are chosen by: their tokens' q and k after RoPE, each projected to r features. Made by `Gate.lookups`."""

    q: torch.Tensor      # [B, Sq, L, r], or packed [T, L, r]
    k: torch.Tensor      # [B, Sk, L, r], or packed [S, L, r]: each head has keys of its own
    heads: torch.Tensor  # int64 [L], on their device: which query heads they are


def block_sparse_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lists: BlockLists, scale: Optional[float] = None,
                           causal: bool = True, return_lse: bool = False) -> Union[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Attention of every row to its listed key blocks.

    q [B, Sq, Hq, D], k and v [B, Sk, Hk, D], or packed. -> o as q; with `return_lse` also the natural logarithm of the sum
    of exponents, float32 [B, Hq, Sq] (packed: [Hq, T]). `scale`: default 1 / sqrt(D). Differentiable in q, k and v, once.
    """
    q, k, v = _autocast(q, k, v)
    _check_qkv("block_sparse_attention", q, k, v, takes_f64=True)
    check_class("block_sparse_attention", "lists", lists, BlockLists, "of select_blocks or BlockLists.from_mask")
    p = lists.packing
    _check_sequences("block_sparse_attention", q, k, p, "lists")
    if lists.count.shape[0] not in (q.shape[-2], k.shape[-2]):
        raise ValueError(f"block_sparse_attention: lists are of {counted(lists.count.shape[0], 'head')}, want the {q.shape[-2]} of q or the {k.shape[-2]} of k "
                         "(BlockLists.per_query_head shares lists)")
    o, lse = torch.ops.seer.block_sparse_attn(
        _flat(q), _flat(k), _flat(v), p.cu_q, p.cu_k, p.cu_rows, lists.begin, lists.count, lists.list, p.block,
        _scale(scale, q), causal)
    return _results(q, o, lse, return_lse)


def pooled_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Sequences = None, block: int = BLOCK,
                     block_q: Optional[int] = None, scale: Optional[float] = None, causal: bool = True,
                     group_max: bool = False, normalise: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dense attention, and the largest attention weight of every block, in one pass.

    -> o as q, lse as of `block_sparse_attention`, map float32 [B, Hq, rows, blocks] (packed: [Hq, R, N]); with `group_max`
    that of each group of query heads, [.., Hk, ..]; with `normalise` its rows sum to 1. Rows have `block_q` tokens (1 to
    128; default: `block`). No gradient.
    """
    q, k, v = _autocast(q, k, v)
    _check_qkv("pooled_attention", q, k, v)
    p = _packing("pooled_attention", q, k, packing, block, block_q)
    o, lse, pooled = torch.ops.seer.pooled_attn(
        _flat(q), _flat(k), _flat(v), p.cu_q, p.cu_k, p.cu_rows, p.num_rows, p.num_blocks, p.block_q, p.block,
        _scale(scale, q), causal, group_max, normalise)
    return *_results(q, o, lse, True), p.split_rows(pooled)


def pooled_map(q: torch.Tensor, k: torch.Tensor, packing: Sequences = None, block: int = BLOCK, block_q: Optional[int] = None,
               scale: Optional[float] = None, causal: bool = True, group_max: bool = False,
               normalise: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """lse and map of `pooled_attention`, where nothing needs its output: values are not read. No gradient."""
    q, k = _autocast(q, k)
    _check_qkv("pooled_map", q, k)
    p = _packing("pooled_map", q, k, packing, block, block_q)
    lse, pooled = torch.ops.seer.pooled_map(
        _flat(q), _flat(k), p.cu_q, p.cu_k, p.cu_rows, p.num_rows, p.num_blocks, p.block_q, p.block, _scale(scale, q), causal,
        group_max, normalise)
    return _lse(q, lse), p.split_rows(pooled)


def gate_scores(vectors: GateVectors, lookups: Optional[Lookups] = None, scale: Optional[float] = None) -> torch.Tensor:
    """What a gate thinks of every key block: float32 [B, Hq, rows, blocks] (packed: [Hq, R, N]), -inf where no key of it is
    visible. With `lookups` the scores of these heads are `lookup_scores`, which want the attention's `scale`. Differentiable in
    vectors and lookups."""
    check_vectors("gate_scores", vectors)
    p = vectors.packing
    scores = torch.ops.seer.attn_gate_score(vectors.q, vectors.k, *p.cu(), p.num_blocks, p.block)
    if lookups is not None:
        _check_lookups("gate_scores", lookups, p)
        if scale is None:
            raise ValueError("gate_scores: lookups want scale, that of the attention (1 / sqrt(D))")
        scores = scores.index_copy(0, lookups.heads, _lookup_scores(lookups.q, lookups.k, p, scale))
    return p.split_rows(scores)


def lookup_scores(q: torch.Tensor, k: torch.Tensor, packing: Sequences = None, block: int = BLOCK, *, scale: float) -> torch.Tensor:
    """Scores of lookup heads, which look single tokens up: float32 [B, L, rows, blocks] (packed: [L, R, N]), -inf where no key of
    a block is visible.

    q [B, Sq, L, r], k [B, Sk, L, r], or packed: projections of q and k after RoPE (`Gate.lookups`). With m the largest `scale` q k of a
    query in a block, the score of a row and a block is the largest among its queries of m less the log-sum-exp of the query's m over
    the blocks. `scale`: that of the attention, 1 / sqrt(D), not of r. Differentiable in q and k.
    """
    q, k = _autocast(q, k)
    _check_lookup_heads("lookup_scores", q, k)
    p = _packing("lookup_scores", q, k, packing, block, None)
    return p.split_rows(_lookup_scores(q, k, p, scale))


def select_blocks(scores: torch.Tensor, sparsity: Union[float, Sequence[float], None] = None, packing: Sequences = None, *, rule: str = "nz_ratio",
                  strength: Union[float, Sequence[float], None] = None, sink_blocks: int = 0, local_blocks: int = 0,
                  last_dense_rows: int = 0, prompt_tokens: int = 0, block: int = BLOCK) -> BlockLists:
    """The blocks that a rule keeps of float32 scores [B, L, rows, blocks] (packed: [L, R, N], with `packing`).

    Rules, and what limits them: nz_ratio (the best of every row) and head_budget (the best of all rows of a head) take
    `sparsity`, the share of the causal blocks that is left out; the others take `strength`: threshold (softmax weight above
    it), top_p (the fewest with that weight together), row_budget (tokens a row). A number for all heads, or one for each.
    The diagonal is always kept; so are the first `sink_blocks`, `local_blocks` before the diagonal, and all blocks of the
    `last_dense_rows`. Ties go to the lower index. `prompt_tokens`: length of the complete prompt while it comes in chunks.

    Without a packing, plain sequences are as long as their blocks.
    """
    if not isinstance(scores, torch.Tensor) or scores.dtype != torch.float32 or scores.dim() not in (3, 4):
        raise ValueError(f"select_blocks: scores is {form(scores)}, want float32 [B, heads, rows, blocks] or, packed, [heads, rows, blocks]")
    if packing is None:
        if scores.dim() == 3:
            raise ValueError("select_blocks: packed scores [heads, rows, blocks] want their packing")
        packing = Packing.of_batch(scores.shape[0], scores.shape[2] * block, scores.shape[3] * block, block, device=scores.device)
    elif not isinstance(packing, Packing):
        packing = Packing.from_cu_seqlens(packing, block=block)
    if packing.is_batch != (scores.dim() == 4):
        raise ValueError(f"select_blocks: scores is {form(scores)}, but the packing is of {_kind(packing)} tensors")
    flat = packing.join_rows(scores)
    if flat.shape[1:] != (packing.num_rows, packing.num_blocks):
        raise ValueError(f"select_blocks: scores is {form(scores)}, want {packing.num_rows} rows in all and {packing.num_blocks} "
                         "blocks for these sequences")
    own = selection(sparsity, rule, strength, sink_blocks, local_blocks, last_dense_rows, prompt_tokens, packing.block)
    _check_choice("select_blocks", own, flat.shape[0], prompt_tokens, packing)
    begin, count, listed = torch.ops.seer.block_select(flat.detach(), packing.cu_q, packing.cu_k, packing.cu_rows, packing.block, *own)
    return BlockLists(begin, count, listed, packing)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, vectors: GateVectors,
              sparsity: Union[float, Sequence[float], None] = None, *,
              rule: str = "nz_ratio", strength: Union[float, Sequence[float], None] = None, sink_blocks: int = 0,
              local_blocks: int = 0, last_dense_rows: int = 0, prompt_tokens: int = 0, scale: Optional[float] = None,
              causal: bool = True, return_lists: bool = False,
              lookups: Optional[Lookups] = None) -> Union[torch.Tensor, tuple[torch.Tensor, BlockLists]]:
    """`gate_scores`, `select_blocks` and `block_sparse_attention` in one call, the program's own.

    q, k, v after RoPE; `vectors` of q and k before it (seer.Gate); `lookups` of q and k after it (Gate.lookups), whose heads are
    chosen by `lookup_scores`. -> o as q, with `return_lists` also the BlockLists. Differentiable in q, k and v; the choice has no
    gradient.
    """
    q, k, v = _autocast(q, k, v)
    _check_qkv("attention", q, k, v)
    check_vectors("attention", vectors, q.shape[-2])
    p = vectors.packing
    _check_sequences("attention", q, k, p, "vectors")
    rule_of = selection(sparsity, rule, strength, sink_blocks, local_blocks, last_dense_rows, prompt_tokens, p.block)
    _check_choice("attention", rule_of, q.shape[-2], prompt_tokens, p)
    own = {}
    if lookups is not None:
        _check_lookups("attention", lookups, p)
        own = dict(lookup_q=_flat(lookups.q.detach()), lookup_k=_flat(lookups.k.detach()), lookup_heads=lookups.heads)
    o, lse, *lists = torch.ops.seer.sparse_attention(
        _flat(q), _flat(k), _flat(v), vectors.q, vectors.k, *p.cu(), p.num_blocks, p.block, _scale(scale, q), causal, *rule_of,
        **own)
    o = o.view(q.shape)
    return (o, BlockLists(*lists, p)) if return_lists else o


def selection(sparsity, rule, strength, sink_blocks, local_blocks, last_dense_rows, prompt_tokens, block) -> tuple:
    """A rule as the ops take it: rule, strengths, sink_blocks, local_blocks, last_dense_rows, prompt_blocks. ValueError: a setting is
    out of range."""
    by_share = rule in RULES_BY_SHARE
    if not by_share and rule not in STRENGTHS:
        raise ValueError(f"unknown rule {rule!r}, want {', '.join((*RULES_BY_SHARE, *STRENGTHS))}")
    given, name, other = (sparsity, "sparsity", strength) if by_share else (strength, "strength", sparsity)
    if given is None or other is not None:
        missing = f": {name} is missing" if given is None else ""
        raise ValueError(f"the rule {rule} takes {name}, and no {'strength' if by_share else 'sparsity'}{missing}")
    given = given.tolist() if hasattr(given, "tolist") else given  # of a tensor or array
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    for x in values:
        if not isinstance(x, (int, float)) or isinstance(x, bool):
            raise ValueError(f"{name} is {given!r}, want a number, or one for each head")
        if by_share and not 0 <= x < 1:
            raise ValueError(f"sparsity is {x:g}, want 0 or more, and less than 1")
        if not by_share and not 0 <= x <= STRENGTHS[rule]:
            raise ValueError(f"strength is {x:g}, want 0 to {STRENGTHS[rule]:g} of the rule {rule}")
    for of, value in (("sink_blocks", sink_blocks), ("local_blocks", local_blocks), ("last_dense_rows", last_dense_rows)):
        check_count(of, value, MOST_BLOCKS)
    check_count("prompt_tokens", prompt_tokens, MOST_TOKENS)
    return rule, [1.0 - x if by_share else float(x) for x in values], sink_blocks, local_blocks, last_dense_rows, -(-prompt_tokens // block)


def check_count(name: str, value, most: Optional[int] = None) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 0 or most is not None and value > most:
        raise ValueError(f"{name} is {value!r}, want a whole number, 0 {'or more' if most is None else f'to {most}'}")


def check_strengths(rule: str, values: Sequence[float], heads: int) -> None:
    if len(values) not in (1, heads):
        name = "sparsity" if rule in RULES_BY_SHARE else "strength"
        raise ValueError(f"{name} has {len(values)} numbers, want one, or one for each of {heads} heads")


# ---- Arguments -----------------------------------------------------------------------------------


def _kind(packing: Packing) -> str:
    return "plain" if packing.is_batch else "packed"


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(0, 1) if x.dim() == 4 else x


def _scale(scale: Optional[float], q: torch.Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def check_class(name: str, argument: str, given, wanted: type, made_by: str) -> None:
    if not isinstance(given, wanted):
        raise ValueError(f"{name}: {argument} is of class {type(given).__name__}, want seer.{wanted.__name__}, {made_by}")


def check_vectors(name: str, vectors: GateVectors, heads: Optional[int] = None) -> None:
    """heads: those of the attention that chooses by them."""
    check_class(name, "vectors", vectors, GateVectors, "of seer.Gate")
    q, k, p = vectors
    rows, blocks = p.num_rows, p.total_blocks
    if q.dtype != torch.float32 or k.dtype != torch.float32 or q.shape[::2] != (rows, k.shape[-1]) or k.shape[0] != blocks or q.shape[1] % k.shape[1]:
        raise ValueError(f"{name}: vectors are q {form(q)}, k {form(k)}, want float32 [{rows} rows, heads, d] and [{blocks} blocks, heads, d], as "
                         "seer.Gate makes them of these sequences")
    if heads is not None and q.shape[1] != heads:
        raise ValueError(f"{name}: vectors are of {q.shape[1]} heads, q has {heads}")


def _check_choice(name: str, of: tuple, heads: int, prompt_tokens: int, p: Packing) -> None:
    check_strengths(of[0], of[1], heads)
    if 0 < of[-1] < p.num_blocks:
        raise ValueError(f"{name}: prompt_tokens is {prompt_tokens}, but a sequence has {max(p.k_lens)} keys: give the length of the complete prompt")


def _autocast(*tensors: torch.Tensor):
    device = tensors[0].device.type if isinstance(tensors[0], torch.Tensor) else "meta"  # what is no tensor is refused later
    if device == "meta" or not torch.is_autocast_enabled(device):  # torch has no autocast of meta tensors, and says so by an error
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in tensors)


def _check_qkv(name: str, q: torch.Tensor, k: torch.Tensor, v: Optional[torch.Tensor] = None, takes_f64: bool = False) -> None:
    dtypes, names = (DTYPES + (torch.float64,), NAMES + ", or float64 on a CPU") if takes_f64 else (DTYPES, NAMES)
    wants = "want [B, S, H, D], or packed [tokens, H, D]"
    for letter, x in (("q", q), ("k", k), ("v", k if v is None else v)):
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"{name}: {letter} is of class {type(x).__name__}, {wants}")
        if x.dim() not in (3, 4) or x.dim() != q.dim():
            raise ValueError(f"{name}: {letter} is {form(x)}, {wants}{'' if x is q else f' as q, {form(q)}'}")
        if x.dtype not in dtypes or x.dtype != q.dtype:
            raise ValueError(f"{name}: {letter} is {form(x)}, want {names}{'' if x is q else f', as q, {form(q)}'}")
        if x.device != q.device:
            raise ValueError(f"{name}: {letter} is on {x.device}, q on {q.device}, want one device")
    if v is not None and k.shape != v.shape or k.shape[-1] != q.shape[-1] or q.dim() == 4 and k.shape[0] != q.shape[0]:
        keys, want = (f"k {list(k.shape)}", "k") if v is None else (f"k {list(k.shape)}, v {list(v.shape)}", "k and v alike, and")
        raise ValueError(f"{name}: q is {list(q.shape)}, {keys}, want {want} as q but for tokens and heads")
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        raise ValueError(f"{name}: q has {counted(q.shape[-2], 'head')}, want a multiple of the {k.shape[-2]} of k")


def _check_sequences(name: str, q: torch.Tensor, k: torch.Tensor, p: Packing, of: str) -> None:
    """That q and k are of the sequences which `of` was made for."""
    if p.cu_q.device != q.device:
        raise ValueError(f"{name}: {of} are on {p.cu_q.device}, q on {q.device}, want one device")
    if q.dim() == 4:
        found, made = (q.shape[0], q.shape[1], k.shape[1]), (len(p.q_lens), *(p.q_lens[:1] or (0,)), *(p.k_lens[:1] or (0,)))
        is_same = p.is_batch and found == made
    else:
        found, made = (q.shape[0], k.shape[0]), (sum(p.q_lens), sum(p.k_lens))
        is_same = not p.is_batch and found == made
    if not is_same:
        what = "sequences, tokens of q and of k" if q.dim() == 4 else "tokens of q and of k"
        raise ValueError(f"{name}: q and k have {found} ({what}), but the {of} were made for {made} of {_kind(p)} tensors")


def _check_lookup_heads(name: str, q: torch.Tensor, k: torch.Tensor) -> None:
    _check_qkv(name, q, k)
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"{name}: q has {q.shape[-2]} lookup heads, k {k.shape[-2]}, want as many: each has keys of its own")


def _check_lookups(name: str, lookups: Lookups, p: Packing) -> None:
    check_class(name, "lookups", lookups, Lookups, "of seer.Gate.lookups")
    name = f"{name}, lookups"
    q, k, heads = lookups
    _check_lookup_heads(name, q, k)
    _check_sequences(name, q, k, p, "vectors")
    if heads.dtype != torch.int64 or tuple(heads.shape) != (q.shape[-2],) or heads.device != q.device:
        raise ValueError(f"{name}: heads is {form(heads)} on {heads.device}, want int64 [{q.shape[-2]}] on {q.device}, the query heads")


def _lookup_scores(q: torch.Tensor, k: torch.Tensor, p: Packing, scale: float) -> torch.Tensor:
    return torch.ops.seer.lookup_score(_flat(q), _flat(k), p.cu_q, p.cu_k, p.cu_rows, p.num_rows, p.num_blocks, p.block, scale)[0]


def _packing(name: str, q: torch.Tensor, k: torch.Tensor, given: Sequences, block: int, block_q: Optional[int]) -> Packing:
    """The packing of q and k: made from their shapes or prefix sums, or the one given, in blocks of that size."""
    if given is not None and not isinstance(given, (Packing, torch.Tensor)):
        raise ValueError(f"{name}: packing is of class {type(given).__name__}, want seer.Packing, or prefix sums of tokens in a tensor")
    if block not in BLOCKS:
        raise ValueError(f"{name}: block is {block}, want 16 to 128 tokens, a multiple of 16")
    if q.dim() == 4:
        if given is not None and not (isinstance(given, Packing) and given.is_batch):
            raise ValueError(f"{name}: q is {form(q)}, plain; prefix sums are for packed tensors [tokens, H, D]")
        return Packing.of_batch(q.shape[0], q.shape[1], k.shape[1], block, block_q, q.device)
    if given is None:
        raise ValueError(f"{name}: q is packed, {form(q)}: say where sequences begin with packing= (seer.Packing, or prefix sums)")
    p = given.with_blocks(block, block_q) if isinstance(given, Packing) else Packing.from_cu_seqlens(given, block=block, block_q=block_q)
    _check_sequences(name, q, k, p, "sequences")
    return p


def _results(q: torch.Tensor, o: torch.Tensor, lse: torch.Tensor, return_lse: bool):
    o = o.view(q.shape)
    return (o, _lse(q, lse)) if return_lse else o


def _lse(q: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    return lse.view(lse.shape[0], *q.shape[:2]).transpose(0, 1) if q.dim() == 4 else lse
