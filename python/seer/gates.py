"""Gates: small weights that score pairs of blocks from queries and keys before RoPE (arXiv 2410.13276), and their folders."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pickle
import re
from typing import Mapping, Optional, Sequence

import torch

from ._random import normal
from .ops import GateVectors, Lookups
from .packing import BLOCK, BLOCKS, Packing, ceil_div, counted

INITIAL_DEVIATION = 0.02  # of the published code
WEIGHTS = "attn_gate_weights"
_POOLS = {"max": 1, "min": 2, "avg": 4}
LOOKUP_RANKS = (16, 32, 64)
# A layer's parameters: their names in a state dict and in folders, and the streams of the draws of first values, to which twice
# the layer is added.
PARAMETERS = {"q": ("mask_linear_q", 0), "k": ("mask_linear_k", 1), "lookup_q": ("lookup_q", 2 << 32), "lookup_k": ("lookup_k", 3 << 32)}


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """What gates are; in brackets the keys of a folder's config.json."""

    type: str = "Qavg_Kmaxminavg"  # [seerattn_gate_type] poolings of q and of k, in the order max, min, avg
    block_size: int = BLOCK        # [seerattn_gate_block_size] tokens, 16 to 128, by 16
    gate_dim: int = 0              # [seerattn_gate_hidden_size] features of a vector; 0: the model's head size
    force_double: bool = False     # [seerattn_gate_force_double] a weight for q, too
    base_model: str = ""           # [base_model] what they were made for
    fingerprint: str = ""          # [base_model_fingerprint] of its weights; empty: not known
    # Query heads whose blocks are chosen by their own tokens (seer.Lookups).
    lookup_rank: int = 0           # [seer_lookup_rank] features of a token: 16, 32 or 64; 0: there are no such heads
    lookup_heads: Mapping[int, Sequence[int]] = dataclasses.field(default_factory=dict, hash=False)  # [seer_lookup_heads] by layer, ascending

    def __post_init__(self):
        self.pools()
        if self.block_size not in BLOCKS:
            raise ValueError(f"gate block size is {self.block_size!r}, expected 16 to 128 by 16")
        if not _is_count(self.gate_dim):
            raise ValueError(f"gate size is {self.gate_dim!r}, expected 0, the model's head size, or more features")
        by_layer = isinstance(self.lookup_heads, Mapping) and all(
            _is_count(layer) and isinstance(heads, Sequence) and not isinstance(heads, str) for layer, heads in self.lookup_heads.items())
        if not by_layer:
            raise ValueError(f"lookup_heads is {self.lookup_heads!r}, expected lists of heads by layer, such as {{3: [1, 5]}}")
        found = {layer: tuple(heads) for layer, heads in self.lookup_heads.items() if len(heads)}
        for layer, heads in found.items():
            if not all(map(_is_count, heads)):
                raise ValueError(f"the lookup heads of layer {layer} are {list(heads)}, expected whole numbers from 0 on")
            for before, head in zip(heads, heads[1:]):
                if before >= head:
                    raise ValueError(f"among the lookup heads of layer {layer}, {head} comes after {before}, expected each head once, in "
                                     "ascending order")
        object.__setattr__(self, "lookup_heads", dict(sorted(found.items())))
        if found and not self.lookup_rank:
            raise ValueError("layers have lookup heads (seer_lookup_heads), but their rank seer_lookup_rank is missing, expected 16, 32 or 64")
        if (found or self.lookup_rank) and self.lookup_rank not in LOOKUP_RANKS:
            raise ValueError(f"the rank of lookup heads is {self.lookup_rank!r}, expected 16, 32 or 64 (seer_lookup_rank)")
        if self.lookup_rank and not found:
            raise ValueError(f"lookup heads have the rank {self.lookup_rank}, but no layer has any (seer_lookup_heads)")

    def pools(self) -> tuple[int, int]:
        """Poolings of q and of k as bits: max 1, min 2, avg 4."""
        found = re.fullmatch(r"Q((?:max)?(?:min)?(?:avg)?)_K((?:max)?(?:min)?(?:avg)?)", self.type)
        bits = [sum(bit for name, bit in _POOLS.items() if name in part) for part in (found.groups() if found else ("", ""))]
        if not all(bits):
            raise ValueError(f"gate type {self.type!r} is not known; expected Q..._K... with poolings in the order max, min, avg, such as "
                             "Qavg_Kmaxminavg")
        return bits[0], bits[1]

    def is_double(self, head_dim: int) -> bool:
        """Whether q has a weight, too, and k one for each key head instead of each query head."""
        return self.force_double or self.gate_dim not in (0, head_dim) or self.pools()[0].bit_count() > 1

    def shapes(self, num_heads: int, num_kv_heads: int, head_dim: int, layer: int = 0) -> dict[str, tuple[int, int, int]]:
        """Of the weights of a layer, those of PARAMETERS that it has: (heads, features in, features out)."""
        q, k = (head_dim * bits.bit_count() for bits in self.pools())
        size = self.gate_dim or head_dim
        double = self.is_double(head_dim)
        found = {"q": (num_heads, q, size), "k": (num_kv_heads, k, size)} if double else {"k": (num_heads, k, size)}
        heads = self.lookup_heads.get(layer)
        return {**found, **dict.fromkeys(("lookup_q", "lookup_k"), (len(heads), head_dim, self.lookup_rank))} if heads else found

    def check_lookups(self, num_heads: int, head_dim: int, num_layers: Optional[int] = None) -> None:
        """ValueError: a model of these sizes does not have the lookup heads."""
        if self.lookup_rank > head_dim:
            raise ValueError(f"the rank of lookup heads is {self.lookup_rank}, more than the model's head size {head_dim}")
        for layer, heads in self.lookup_heads.items():
            if num_layers is not None and layer >= num_layers:
                raise ValueError(f"layer {layer} has lookup heads, but the model has {counted(num_layers, 'layer')}, counted from 0; are these gates of "
                                 "another model?")
            if heads[-1] >= num_heads:
                raise ValueError(f"layer {layer} has the lookup head {heads[-1]}, but the model has {counted(num_heads, 'head')} a layer, counted from 0; "
                                 "are these gates of another model?")

    @classmethod
    def read(cls, folder) -> GateConfig:
        """Of a gate's folder. ValueError, which names the file: it is not one of prefill gates."""
        path = pathlib.Path(folder) / "config.json"
        try:
            fields = json.loads(path.read_text())
        except OSError as error:
            name = os.fspath(folder)
            if not os.path.exists(name) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
                place = name.split("/")[1]
                raise ValueError(f"{name} is no folder here; gates of this name on Hugging Face are got by `hf download {name} --local-dir {place}`, "
                                 f"then give {place}") from None
            raise ValueError(f"{path}: {error.strerror}; a gate's folder holds config.json and {WEIGHTS}.safetensors or .pth") from None
        except ValueError:
            raise ValueError(f"{path} is not valid JSON") from None
        if "seerattn_k_seq_pooling_type" in fields:
            raise ValueError(f'{path}: "seerattn_k_seq_pooling_type" says that these gates are for decoding; expected gates for prefill')
        if "seerattn_gate_type" not in fields:
            raise ValueError(f'{path}: "seerattn_gate_type" is missing; this is a model\'s config.json, not a gate\'s')
        try:
            config = cls(fields["seerattn_gate_type"], fields.get("seerattn_gate_block_size", BLOCK),
                         fields.get("seerattn_gate_hidden_size") or 0, bool(fields.get("seerattn_gate_force_double", False)),
                         fields.get("base_model") or "", fields.get("base_model_fingerprint") or "",
                         fields.get("seer_lookup_rank") or 0, _lookup_heads(fields.get("seer_lookup_heads")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return config


def _is_count(x) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _lookup_heads(field) -> dict[int, list[int]]:
    """Of a config.json: {"3": [1, 5]}, layers without left out."""
    if field is None:
        return {}
    if not isinstance(field, dict) or not field:
        raise ValueError(f'seer_lookup_heads is {json.dumps(field)}, expected lists of heads by layer, such as {{"3": [1, 5]}}, or no such key')
    for layer, heads in field.items():
        if not re.fullmatch("0|[1-9][0-9]{0,5}", layer):
            raise ValueError(f"seer_lookup_heads has the key {json.dumps(layer)}, expected the number of a layer")
        if not isinstance(heads, list) or not heads or not all(map(_is_count, heads)):
            raise ValueError(f"seer_lookup_heads.{layer} is {json.dumps(heads)}, expected a list of heads; layers without are left out")
    return {int(layer): heads for layer, heads in field.items()}


class _HeadLinear(torch.nn.Module):
    """float32 [heads, features in, features out]: a product for each head."""

    def __init__(self, shape: tuple[int, int, int], device=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(shape, dtype=torch.float32, device=device), requires_grad=False)
        torch.nn.init.normal_(self.weight, std=INITIAL_DEVIATION)


class Gate(torch.nn.Module):
    """The gate of one layer; `layer`: which one, where layers have lookup heads.

    Called with q [B, S, Hq, D] and k [B, S, Hk, D] of the same tokens before RoPE (after bias and norm), or packed ones with
    their packing, and cos, sin float32 [rows, w / 2] of the first token of each block (`block_angles`), it gives the vectors
    that `seer.attention` and `seer.gate_scores` take. Where gradients are enabled and its weights want one, they get it; q
    and k never do. `lookups` makes of q and k after RoPE what lookup heads are chosen by.
    """

    def __init__(self, config: GateConfig, num_heads: int, num_kv_heads: int, head_dim: int, device=None, layer: int = 0):
        super().__init__()
        self.config = config
        if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"gate: {num_heads} query heads and {num_kv_heads} key heads, want a multiple of the key heads")
        config.check_lookups(num_heads, head_dim)
        self.sizes = num_heads, num_kv_heads, head_dim
        shapes = config.shapes(num_heads, num_kv_heads, head_dim, layer)
        for parameter, (name, _) in PARAMETERS.items():
            setattr(self, name, _HeadLinear(shapes[parameter], device) if parameter in shapes else None)
        if self.lookup_q is not None:
            self._name_lookups(layer, num_heads // num_kv_heads, device)

    def _name_lookups(self, layer: int, group: int, device) -> None:
        heads = self.config.lookup_heads[layer]
        self.read_heads = heads, tuple(head // group for head in heads)  # of q, of k
        for name, of in zip(("lookup_heads", "lookup_kv_heads"), self.read_heads):
            self.register_buffer(name, torch.tensor(of, device=device), persistent=False)

    def begin_lookups(self, config: GateConfig, layer: int, group: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Gives the gate of layer `layer` the lookup heads that `config` has and it has not, with these first weights, by PARAMETERS;
        none: the layer has no such heads. group: query heads of a key head."""
        self.config, like = config, next(self.parameters())
        for parameter, weight in weights.items():
            setattr(self, PARAMETERS[parameter][0], _HeadLinear(tuple(weight.shape), like.device).requires_grad_(like.requires_grad))
        self.load(weights)
        if weights:
            self._name_lookups(layer, group, like.device)

    def weight(self, parameter: str) -> Optional[torch.Tensor]:
        """float32, of one of PARAMETERS; None: the layer has none."""
        linear = getattr(self, PARAMETERS[parameter][0])
        return None if linear is None else linear.weight.float()

    def forward(self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                packing: Optional[Packing] = None) -> GateVectors:
        if q.dim() not in (3, 4) or q.dim() != k.dim() or q.shape[:-2] != k.shape[:-2]:
            raise ValueError(f"gate: q is {list(q.shape)} and k {list(k.shape)}, want those of the same tokens, [B, S, H, D] or packed")
        self.check_heads(q, k)
        p = packing
        if p is None:
            if q.dim() == 3:
                raise ValueError("gate: q is packed: say where sequences begin with packing= (seer.Packing)")
            p = Packing.of_batch(q.shape[0], q.shape[1], block=self.config.block_size, device=q.device)
        if p.block != self.config.block_size or p.block_q != p.block:
            raise ValueError(f"gate: blocks of {p.block_q} queries and {p.block} keys, but it was made for {self.config.block_size}")
        if self.trains():
            return GateVectors(self.of("q", q, cos, sin, p), self.of("k", k, cos, sin, p), p)
        q, k = (x.flatten(0, 1) if x.dim() == 4 else x for x in (q.detach(), k.detach()))
        q_pools, k_pools = self.config.pools()
        with torch.no_grad():
            vectors = torch.ops.seer.attn_gate_vectors(q, k, p.cu_q, p.cu_rows, p.num_rows, p.block, q_pools, k_pools,
                                                       self.weight("q"), self.weight("k"), cos, sin)
        return GateVectors(*vectors, p)

    def check_heads(self, q: torch.Tensor, k: torch.Tensor) -> None:
        heads, kv_heads, size = self.sizes
        if (*q.shape[-2:], *k.shape[-2:]) != (heads, size, kv_heads, size):
            raise ValueError(f"gate: q has heads and features {list(q.shape[-2:])}, k {list(k.shape[-2:])}, but it was made for {[heads, size]} and "
                             f"{[kv_heads, size]}")

    def of(self, letter: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, packing: Packing) -> torch.Tensor:
        """The vectors of queries ("q") or keys ("k") alone, float32 [blocks, heads, d]; `packing`: of their own tokens."""
        x = (x.flatten(0, 1) if x.dim() == 4 else x).detach()
        args = x, packing.cu_q, packing.cu_rows, packing.num_rows, packing.block, self.config.pools()[int(letter == "k")]
        weight = self.weight(letter)
        if weight is None:
            return torch.ops.seer.attn_gate_pool(*args, cos, sin)
        return torch.ops.seer.attn_gate_project(torch.ops.seer.attn_gate_pool(*args), weight, cos, sin)

    def lookups(self, q: torch.Tensor, k: torch.Tensor) -> Optional[Lookups]:
        """Of the layer's lookup heads, None where it has none, by q [B, Sq, Hq, D] and k [B, Sk, Hk, D] after RoPE, or packed ones; k:
        all keys that q sees. float16 where q and k are of 16 bits: a GPU then multiplies numbers of their type. Where the weights learn of
        the type of q and k, computed in float32. Differentiable in the weights alone."""
        if self.lookup_q is None:
            return None
        self.check_heads(q, k)
        weights = [self.weight(f"lookup_{letter}") for letter in "qk"]
        if torch.is_grad_enabled() and any(w.requires_grad for w in weights):
            return Lookups(*map(_project, (q, k), self.read_heads, weights), self.lookup_heads)
        made = torch.ops.seer.lookup_project(q.detach().flatten(0, -3), k.detach().flatten(0, -3), *(w.detach() for w in weights),
                                             self.lookup_heads, self.lookup_kv_heads)
        return Lookups(*(x.unflatten(0, of.shape[:-2]) for x, of in zip(made, (q, k))), self.lookup_heads)

    def draw(self, seed: int, number: int) -> None:
        """First weights of the gate of layer `number`, those that `seer distill --seed` begins with."""
        for name, stream in PARAMETERS.values():
            linear = getattr(self, name)
            if linear is not None:
                linear.weight.data.copy_(INITIAL_DEVIATION * normal(tuple(linear.weight.shape), seed, 2 * number + stream))

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes weights, by PARAMETERS."""
        for parameter, weight in weights.items():
            getattr(self, PARAMETERS[parameter][0]).weight.data.copy_(weight)

    def trains(self) -> bool:
        return torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())


def _project(x: torch.Tensor, heads: Sequence[int], weight: torch.Tensor) -> torch.Tensor:
    """x [..., H, D], the products of its `heads` with weight [L, D, r], which learns: [..., L, r]. In float32, then of x's type."""
    with torch.autocast(x.device.type, enabled=False):
        tokens = x.detach().flatten(0, -3)
        made = [torch.mm(tokens[:, head].float(), own) for head, own in zip(heads, weight.unbind(0), strict=True)]
        return torch.stack(made, 1).unflatten(0, x.shape[:-2]).to(x.dtype)


def block_angles(inv_freq: torch.Tensor, packing: Packing, scaling: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """RoPE's cos and sin, float32 [rows, len(inv_freq)], at the first token of each row: what a gate takes.

    `inv_freq` and `scaling`: those of the model (transformers: rotary_emb.inv_freq and .attention_scaling).
    """
    starts = [nk - nq + at * packing.block_q for nq, nk in zip(packing.q_lens, packing.k_lens)
              for at in range(ceil_div(nq, packing.block_q))]
    positions = torch.tensor(starts, dtype=torch.float32).to(inv_freq.device, non_blocking=True)
    angle = positions[:, None] * inv_freq.float()
    return angle.cos() * scaling, angle.sin() * scaling


def weight_name(layer: int, parameter: str) -> str:
    """As the published gates name it."""
    return f"model.layers.{layer}.self_attn.attn_gate.{PARAMETERS[parameter][0]}.weight"


def read_weights(folder, config: GateConfig, num_layers: int, heads: tuple[int, int, int]) -> list[dict[str, torch.Tensor]]:
    """Weights of every layer, by PARAMETERS, float32, of a gate's folder. `heads`: query heads, key heads, features of a head.
    ValueError, which names the file: gates of another model, or NaN."""
    folder = pathlib.Path(folder)
    try:
        config.check_lookups(heads[0], heads[2], num_layers)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    path = folder / f"{WEIGHTS}.safetensors"
    try:
        if path.exists():
            found = load_file(path)
        else:
            path = folder / f"{WEIGHTS}.pth"
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds neither {WEIGHTS}.safetensors nor {WEIGHTS}.pth") from None
    except (pickle.UnpicklingError, EOFError):  # whose words advise to load it unchecked
        raise ValueError(f"{path} cannot be read: expected tensors by name, as torch.save writes them; is the file whole?") from None
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}); is the file whole?") from None
    shapes = [config.shapes(*heads, layer) for layer in range(num_layers)]
    for layer, name in [(layer, name) for layer in range(num_layers) for name in ("lookup_q", "lookup_k")]:
        has = name in shapes[layer]
        if isinstance(found, dict) and (weight_name(layer, name) in found) != has:
            state, names = ("missing, but", "lookup heads") if has else ("there, but", "no lookup head")
            raise ValueError(f"{path}: tensor {weight_name(layer, name)} is {state} {folder / 'config.json'} names {names} of layer {layer}; do "
                             "config.json and weights belong together?")
    expected = sum(map(len, shapes))
    if not isinstance(found, dict) or len(found) != expected:
        raise ValueError(f"{path} holds {counted(len(found), 'tensor')}, expected {expected} for a model of {counted(num_layers, 'layer')}; are these gates "
                         "of another model?")
    layers: list[dict[str, torch.Tensor]] = []
    for layer in range(num_layers):
        layers.append({})
        for parameter, shape in shapes[layer].items():
            name = weight_name(layer, parameter)
            weight = found.get(name)
            if weight is None:
                raise ValueError(f"{path}: {name} is missing; are these gates of another model?")
            if tuple(weight.shape) != shape:
                raise ValueError(f"{path}: {name} is {list(weight.shape)}, expected {list(shape)}; are these gates of another model?")
            if not torch.isfinite(weight).all():
                raise ValueError(f"{path}: {name} has NaN or infinite values")
            layers[-1][parameter] = weight.float()
    return layers


def write_gates(folder, base_config: dict, config: GateConfig, layers: list[dict[str, torch.Tensor]]) -> None:
    """A gate's folder: the base model's config with the gate's keys added, and the weights. ValueError: NaN."""
    from safetensors.torch import save_file
    folder = pathlib.Path(folder)
    fields = {**base_config, "base_model": config.base_model, "seerattn_gate_type": config.type,
              "seerattn_gate_block_size": config.block_size, "seerattn_gate_hidden_size": config.gate_dim,
              "seerattn_gate_force_double": config.force_double}
    if config.fingerprint:
        fields["base_model_fingerprint"] = config.fingerprint
    if config.lookup_heads:
        fields["seer_lookup_rank"] = config.lookup_rank
        fields["seer_lookup_heads"] = {str(layer): list(heads) for layer, heads in config.lookup_heads.items()}
    tensors = {weight_name(layer, parameter): weight.detach().cpu().contiguous()
               for layer, weights in enumerate(layers) for parameter, weight in weights.items()}
    for name, weight in tensors.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{folder}: {name} has NaN or infinite values, nothing is written")
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / f"{WEIGHTS}.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    replace(folder / "config.json", lambda path: path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n"))


def check_folder(path: pathlib.Path) -> None:
    """ValueError: it, or what it would lie in, is there and is no folder."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write into {path}: {'it' if there == path else there} is not a folder; choose another place")


def replace(path: pathlib.Path, write) -> None:
    """`write(path)` to a file beside `path`, which then takes its place; several processes may do so at once."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
