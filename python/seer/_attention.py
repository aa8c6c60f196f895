"""The attention function that transformers calls for each layer of a model with gates."""
from __future__ import annotations

import sys

import torch

from ._dense import dense_attention
from ._gate_keys import layer_keys
from ._passes import Part, Pass, Unsupported, flat, turn_back
from .gates import Gate
from .lists import BlockLists
from .ops import GateVectors, attention, block_sparse_attention, pooled_attention, pooled_map
from .packing import Packing, ceil_div


def seer_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, seer_pass=None, **kwargs):
    """query [B, Hq, T, D], key, value [B, Hk, S, D] after RoPE and the cache -> (o [B, T, Hq, D], None)."""
    gate = getattr(module, "attn_gate", None)
    if gate is None or seer_pass is None:
        raise ValueError('seer: attn_implementation "seer" works on a model as a whole after seer.attach(model, ...)')
    if isinstance(seer_pass, str):  # a dense call, of which this layer runs again in a backward
        own = own_attention(module, seer_pass)
        return own(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, sliding_window=sliding_window, **kwargs)
    run = run_layer if seer_pass.learned is None else gate.attachment.learning_layer
    return run(module, gate, seer_pass, query, key, value, scaling, sliding_window), None


def run_layer(module, gate: Gate, of: Pass, q, k, v, scaling, window):
    if k.device != q.device or v.device != q.device:
        raise ValueError(f"seer: q is on {q.device}, k on {k.device}, v on {v.device}, want one device")
    layer = Layer(module, gate, of, q, k, v, q.shape[-1] ** -0.5 if scaling is None else scaling)
    if window and of.longest > window:
        return layer.dense(window)
    if of.learned is not None and gate.attachment.learning.is_dense:
        return layer.distill()
    if not of.is_sparse:
        layer.remember_keys()
        return layer.dense(None)
    return layer.sparse()


def own_attention(module, name: str):
    """A function of transformers' registry; "eager" is the model's own."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    return ALL_ATTENTION_FUNCTIONS[name] if name in ALL_ATTENTION_FUNCTIONS else sys.modules[type(module).__module__].eager_attention_forward


class Layer:
    """One call of one layer."""

    def __init__(self, module, gate: Gate, of: Pass, q, k, v, scale: float):
        self.gate, self.of, self.scale, self.number = gate, of, scale, module.layer_idx
        self.q, self.k, self.v = q, k, v
        self.block, self.device = gate.config.block_size, q.device
        self.module = module

    def plain(self, letter: str) -> torch.Tensor:
        """q or k before RoPE, [B, T, H, D], of the tokens given now."""
        gate, heads = self.gate, (self.q if letter == "q" else self.k).shape[1]
        for name, hooked in zip(gate.sources, gate.hooked):
            if getattr(self.module, name) is not hooked:
                raise ValueError(f"seer: {name} of layer {self.number} was replaced after seer.attach (by PEFT?): detach and attach again")
        size = self.q.shape[-1]
        if len(gate.sources) == 1:
            begin = 0 if letter == "q" else self.q.shape[1] * size
            kept = gate.kept[gate.sources[0]][..., begin:begin + heads * size]
        else:
            kept = gate.kept[gate.sources[int(letter == "k")]]
        return kept.view(self.of.batch, self.of.tokens, heads, size)

    # ---- Dense ------------------------------------------------------------------------------------

    def dense(self, window):
        of, columns = self.of, self.k.shape[2]
        if not of.is_packed:
            mask = None if of.mask is None else of.mask[:, of.columns - columns:]
            return dense_attention(self.q, self.k, self.v, mask, window, self.scale)
        parts = [dense_attention(*(x[row:row + 1, :, begin:end] for x in (self.q, self.k, self.v)), None, window, self.scale)
                 for row, begin, end in of.sequences]
        return torch.cat(parts, 1).view(of.batch, of.tokens, *parts[0].shape[2:])

    def cached(self):
        """Gate keys of the cache; None: there is no cache, or other tokens are in it than were seen."""
        if self.gate.cache is None or self.of.is_packed:
            return None
        return layer_keys(self.gate.cache, self.number, self.of.past, self.of.batch)

    def remember_keys(self) -> None:
        """Of tokens that are read densely, for chunks that follow."""
        keys = self.cached()
        if keys is None:
            return
        keys.pending.append(self.plain("k"))
        if sum(x.shape[1] for x in keys.pending) < 4 * self.block:
            return
        try:
            self.of.find_sequences()
        except Unsupported:  # with tokens hidden in between no sparse call can follow
            del self.gate.cache.gate_keys.layers[self.number]
            return
        new = keys.pending.pop()
        keys.take(self.block, self.of.sequences, new, self.key_vectors)

    # ---- Sparse -----------------------------------------------------------------------------------

    def sparse(self):
        of = self.of
        which = "rest" if any(of.heads(self.block)) else "all"
        part = of.on(None, ("part", which), lambda: of.part(which, self.block))
        try:
            chosen = self.choose(part, which)
        except Unsupported as error:  # what is in the cache only a layer can know
            self.gate.attachment.goes_dense(error)
            return self.dense(None)
        if of.learned is not None and self.number not in of.learned:  # the first run of a layer that runs again
            with torch.no_grad():  # saves nothing that a second run would not
                q, k, _ = self.packed(part, which)
                target = pooled_map(q, k, self.packing(part, which), self.block, scale=self.scale, normalise=True)[1]
            self.learn(part, target)
        self.gate.kept.clear()  # the memory of q and k before RoPE, which nothing needs any more
        o = self.attend(part, which, chosen)
        if which == "all":
            index = self.index(part, which)[0]
            return self.whole([(o, index)])
        head = of.on(None, ("part", "head"), lambda: of.part("head", self.block))
        packing = self.packing(head, "head")
        every = packing.visible()[None].expand(self.k.shape[1], -1, -1)
        lists = of.on(self.device, "head lists", lambda: BlockLists.from_mask(every, packing))
        return self.whole([(o, self.index(part, which)[0]), (self.attend(head, "head", lists), self.index(head, "head")[0])])

    # ---- Learning ---------------------------------------------------------------------------------

    def distill(self):
        """Dense attention, and the gate's loss against its map."""
        gate = self.gate
        lookups_only = gate.attachment.learning.lookups_only
        if lookups_only and gate.lookup_q is None:
            return self.dense(None)
        part = self.of.on(None, ("part", "all"), lambda: self.of.part("all", self.block))
        q, k, v = (x.detach() for x in self.packed(part, "all"))
        if lookups_only:  # most heads need no map
            self.move_gate()
            q, k = q.index_select(1, gate.lookup_heads), k.index_select(1, gate.lookup_kv_heads)
            self.learn(part, pooled_map(q, k, self.packing(part, "all"), self.block, scale=self.scale, normalise=True)[1])
            return self.dense(None)
        o, _, target = pooled_attention(q, k, v, self.packing(part, "all"), self.block, scale=self.scale, normalise=True)
        self.learn(part, target)
        return self.whole([(o, self.index(part, "all")[0])])

    def learn(self, part: Part, target: torch.Tensor) -> None:
        """The loss of the gate, once a pass. A pass has no tokens in a cache."""
        of, gate, index = self.of, self.gate, self.index(part, "all")[0]
        if of.is_sharded and torch.is_grad_enabled() and not self.q.requires_grad:
            raise ValueError(f"seer: weights are sharded and no gradient passes through layer {self.number}, so its gate's would be lost: call "
                             "model.enable_input_require_grads()")
        self.move_gate()
        packing = self.packing(part, "all")
        angles = of.angles("all", gate.attachment.rotary, packing, self.device)
        plain = tuple(flat(self.plain(letter), index) for letter in "qk")
        with torch.no_grad():  # saves nothing that a second run would not
            rotated = self.rotated(part, "all")
        of.learned[self.number] = gate.attachment.learning.loss(gate, self.number, plain, rotated, angles, packing, self.scale, target)

    def move_gate(self) -> None:
        if next(self.gate.parameters()).device != self.device:
            self.gate.to(self.device)

    # ---- Parts of the pass ------------------------------------------------------------------------

    def whole(self, parts):
        """[B, T, H, D] of outputs and their places; tokens of no sequence get 0."""
        of = self.of
        (o, index), *rest = parts
        if index is None:
            return o.view(of.batch, of.tokens, *o.shape[1:])
        out = o.new_zeros(of.batch * of.tokens, *o.shape[1:])
        for o, index in parts:
            out = out.index_copy(0, index, o)
        return out.view(of.batch, of.tokens, *o.shape[1:])

    def index(self, part: Part, which: str):
        return self.of.on(self.device, ("index", which), lambda: (part.queries(self.device), part.keys(self.device)))

    def packing(self, part: Part, which: str) -> Packing:
        return self.of.on(self.device, ("packing", which), lambda: part.packing(self.device))

    def packed(self, part: Part, which: str):
        """q, k, v of a part, packed."""
        queries, keys = self.index(part, which)
        q, k, v = (x.transpose(1, 2) for x in (self.q, self.k, self.v))
        return flat(q, queries), flat(k, keys), flat(v, keys)

    def rotated(self, part: Part, which: str):
        """q and k of a part after RoPE at positions from 0 on in each sequence, whatever the model counts padding for: products of
        projections, unlike those of q and k, depend on more than distances."""
        q, k, _ = self.packed(part, which)
        if self.of.shifts is None or self.gate.lookup_q is None:
            return q, k
        inv_freq = self.gate.attachment.base.rotary_emb.inv_freq
        return turn_back(q, self.of.shifts, part.q_lens, inv_freq), turn_back(k, self.of.shifts, part.k_lens, inv_freq)

    def attend(self, part: Part, which: str, chosen):
        """Over lists, or as gate vectors choose."""
        if isinstance(chosen, BlockLists):
            return block_sparse_attention(*self.packed(part, which), chosen, scale=self.scale)
        s = self.gate.attachment.settings
        wanted = {name: s[name] for name in ("sparsity", "rule", "strength", "sink_blocks", "local_blocks", "last_dense_rows")}
        prompt = max(s["prompt_tokens"], max(part.k_lens, default=0)) if s["prompt_tokens"] else 0
        q, k, v = self.packed(part, which)
        with torch.no_grad():
            lookups = self.gate.lookups(*self.rotated(part, which))
        o, lists = attention(q, k, v, chosen, scale=self.scale, prompt_tokens=prompt, return_lists=True, lookups=lookups, **wanted)
        if self.of.keeps_lists:
            self.of.lists[self.number] = lists
        return o

    def choose(self, part: Part, which: str):
        """Lists that are known already, or gate vectors."""
        packing, known = self.packing(part, which), self.of.lists.get(self.number)
        if self.gate.attachment.replaying is not None or known is not None:
            if known is None:
                raise ValueError(f"seer.replay_lists: there are no lists for layer {self.number}")
            if (known.packing.q_lens, known.packing.k_lens) != (packing.q_lens, packing.k_lens):
                raise ValueError(f"seer.replay_lists: the lists of layer {self.number} are for queries and keys {known.packing.q_lens[:4]} of "
                                 f"{known.packing.k_lens[:4]}, this call has {packing.q_lens[:4]} of {packing.k_lens[:4]}")
            self.remember_new()
            return known
        gate = self.gate
        self.move_gate()
        of, is_whole = self.of, part.q_lens == part.k_lens
        own = of.on(self.device, ("own", which), lambda: part.own(self.device))
        cos, sin = of.angles(which, gate.attachment.rotary, packing, self.device)
        queries = flat(self.plain("q"), self.index(part, which)[0])
        with torch.no_grad():
            if is_whole and which == "all":  # keys of the queries' own tokens
                vectors = gate(queries, flat(self.plain("k"), self.index(part, which)[0]), cos, sin, own)
                if self.gate.cache is not None and not of.is_packed:
                    per_row = vectors.k.split([ceil_div(n, self.block) for n in part.k_lens])
                    self.cached().take(self.block, of.sequences, self.plain("k"), lambda starts, tokens: list(per_row))
                return GateVectors(vectors.q, vectors.k, packing)
            every = self.remember_new()
            return GateVectors(gate.of("q", queries, cos, sin, own), torch.cat(every), packing)

    def remember_new(self):
        """Appends the keys given now to those of the cache; vectors of all key blocks of each sequence."""
        if self.gate.cache is None or self.of.is_packed:
            return None
        keys = self.cached()
        if keys is None:
            raise Unsupported("unread cache", f"seer: the cache holds {self.of.past} tokens that were not read with these gates (before seer.attach, by another "
                             "model, or packed): begin with an empty cache")
        with torch.no_grad():
            return keys.take(self.block, self.of.sequences, self.plain("k"), self.key_vectors)

    def key_vectors(self, starts, tokens):
        """Vectors of key blocks from block `starts` of each sequence on."""
        gate, lens = self.gate, [len(x) for x in tokens]
        self.move_gate()
        ends = [start * self.block + n for start, n in zip(starts, lens)]
        key = ("keys", *starts, *lens)
        own = self.of.on(self.device, key, lambda: Packing.from_lengths(lens, None, self.block, device=self.device))
        at = Packing.from_lengths(lens, ends, self.block)
        cos, sin = self.of.angles(key, gate.attachment.rotary, at, self.device)
        with torch.no_grad():
            made = gate.of("k", torch.cat(tokens), cos, sin, own)
        return list(made.split([ceil_div(n, self.block) for n in lens]))
