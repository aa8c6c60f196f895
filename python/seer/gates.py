"""Gates: small weights that score pairs of blocks from queries and keys before RoPE (arXiv 2410.13276), and their folders."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pickle
import re
from typing import Optional

import torch

from ._random import normal
from .ops import GateVectors
from .packing import BLOCK, Packing, ceil_div

INITIAL_DEVIATION = 0.02  # of the published code
WEIGHTS = "attn_gate_weights"
_POOLS = {"max": 1, "min": 2, "avg": 4}


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """What gates are; in brackets the keys of a folder's config.json."""

    type: str = "Qavg_Kmaxminavg"  # [seerattn_gate_type] poolings of q and of k, in the order max, min, avg
    block_size: int = BLOCK        # [seerattn_gate_block_size] tokens, 16 to 128, by 16
    gate_dim: int = 0              # [seerattn_gate_hidden_size] features of a vector; 0: the model's head size
    force_double: bool = False     # [seerattn_gate_force_double] a weight for q, too
    base_model: str = ""           # [base_model] what they were made for
    fingerprint: str = ""          # [base_model_fingerprint] of its weights; empty: not known

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

    def shapes(self, num_heads: int, num_kv_heads: int, head_dim: int) -> dict[str, tuple[int, int, int]]:
        """Of the weights of a layer, "q" and "k": (heads, features in, features out)."""
        q, k = (head_dim * bits.bit_count() for bits in self.pools())
        size = self.gate_dim or head_dim
        if self.is_double(head_dim):
            return {"q": (num_heads, q, size), "k": (num_kv_heads, k, size)}
        return {"k": (num_heads, k, size)}

    @classmethod
    def read(cls, folder) -> GateConfig:
        """Of a gate's folder. ValueError, which names the file: it is not one of prefill gates."""
        path = pathlib.Path(folder) / "config.json"
        try:
            fields = json.loads(path.read_text())
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}; a gate's folder holds config.json and {WEIGHTS}.safetensors or .pth") from None
        except ValueError:
            raise ValueError(f"{path} is not valid JSON") from None
        if "seerattn_k_seq_pooling_type" in fields:
            raise ValueError(f'{path}: "seerattn_k_seq_pooling_type" says that these gates are for decoding; expected gates for prefill')
        if "seerattn_gate_type" not in fields:
            raise ValueError(f'{path}: "seerattn_gate_type" is missing; this is a model\'s config.json, not a gate\'s')
        config = cls(fields["seerattn_gate_type"], fields.get("seerattn_gate_block_size", BLOCK),
                     fields.get("seerattn_gate_hidden_size") or 0, bool(fields.get("seerattn_gate_force_double", False)),
                     fields.get("base_model") or "", fields.get("base_model_fingerprint") or "")
        try:
            config.pools()
            if config.block_size not in range(16, 129, 16):
                raise ValueError(f"gate block size is {config.block_size}, expected 16 to 128 by 16")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return config


class _HeadLinear(torch.nn.Module):
    """float32 [heads, features in, features out]: a product for each head."""

    def __init__(self, shape: tuple[int, int, int], device=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(shape, dtype=torch.float32, device=device), requires_grad=False)
        torch.nn.init.normal_(self.weight, std=INITIAL_DEVIATION)


class Gate(torch.nn.Module):
    """The gate of one layer.

    Called with q [B, S, Hq, D] and k [B, S, Hk, D] of the same tokens before RoPE (after bias and norm), or packed ones with
    their packing, and cos, sin float32 [rows, w / 2] of the first token of each block (`block_angles`), it gives the vectors
    that `seer.attention` and `seer.gate_scores` take. Where gradients are enabled and its weights want one, they get it; q
    and k never do.
    """

    def __init__(self, config: GateConfig, num_heads: int, num_kv_heads: int, head_dim: int, device=None):
        super().__init__()
        self.config = config
        self.mask_linear_q = None
        for letter, shape in config.shapes(num_heads, num_kv_heads, head_dim).items():
            setattr(self, f"mask_linear_{letter}", _HeadLinear(shape, device))

    def weight(self, letter: str) -> Optional[torch.Tensor]:
        """Of "q" or "k"; None: the form has none."""
        linear = getattr(self, f"mask_linear_{letter}")
        return None if linear is None else linear.weight.float()

    def forward(self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                packing: Optional[Packing] = None) -> GateVectors:
        if q.dim() not in (3, 4) or q.dim() != k.dim() or q.shape[:-2] != k.shape[:-2]:
            raise ValueError(f"gate: q is {list(q.shape)} and k {list(k.shape)}, want those of the same tokens, [B, S, H, D] or packed")
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

    def of(self, letter: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, packing: Packing) -> torch.Tensor:
        """The vectors of queries ("q") or keys ("k") alone, float32 [blocks, heads, d]; `packing`: of their own tokens."""
        x = (x.flatten(0, 1) if x.dim() == 4 else x).detach()
        args = x, packing.cu_q, packing.cu_rows, packing.num_rows, packing.block, self.config.pools()[int(letter == "k")]
        weight = self.weight(letter)
        if weight is None:
            return torch.ops.seer.attn_gate_pool(*args, cos, sin)
        return torch.ops.seer.attn_gate_project(torch.ops.seer.attn_gate_pool(*args), weight, cos, sin)

    def draw(self, seed: int, number: int) -> None:
        """First weights of the gate of layer `number`, those that `seer distill --seed` begins with."""
        for letter in ("q", "k"):
            linear = getattr(self, f"mask_linear_{letter}")
            if linear is not None:
                drawn = normal(tuple(linear.weight.shape), seed, 2 * number + (letter == "k"))
                linear.weight.data.copy_(INITIAL_DEVIATION * drawn)

    def trains(self) -> bool:
        return torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())


def block_angles(inv_freq: torch.Tensor, packing: Packing, scaling: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """RoPE's cos and sin, float32 [rows, len(inv_freq)], at the first token of each row: what a gate takes.

    `inv_freq` and `scaling`: those of the model (transformers: rotary_emb.inv_freq and .attention_scaling).
    """
    starts = [nk - nq + at * packing.block_q for nq, nk in zip(packing.q_lens, packing.k_lens)
              for at in range(ceil_div(nq, packing.block_q))]
    positions = torch.tensor(starts, dtype=torch.float32).to(inv_freq.device, non_blocking=True)
    angle = positions[:, None] * inv_freq.float()
    return angle.cos() * scaling, angle.sin() * scaling


def weight_name(layer: int, letter: str) -> str:
    """As the published gates name it."""
    return f"model.layers.{layer}.self_attn.attn_gate.mask_linear_{letter}.weight"


def read_weights(folder, shapes: dict[str, tuple[int, int, int]], num_layers: int) -> list[dict[str, torch.Tensor]]:
    """Weights "q" and "k" of every layer, float32, of a gate's folder. ValueError, which names the file: gates of another
    model, or NaN."""
    folder = pathlib.Path(folder)
    path = folder / f"{WEIGHTS}.safetensors"
    try:
        if path.exists():
            from safetensors.torch import load_file
            found = load_file(path)
        else:
            path = folder / f"{WEIGHTS}.pth"
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds neither {WEIGHTS}.safetensors nor {WEIGHTS}.pth") from None
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    expected = num_layers * len(shapes)
    if not isinstance(found, dict) or len(found) != expected:
        raise ValueError(f"{path} holds {len(found)} tensors, expected {expected} for a model of {num_layers} layers; are these gates "
                         "of another model?")
    layers: list[dict[str, torch.Tensor]] = []
    for layer in range(num_layers):
        layers.append({})
        for letter, shape in shapes.items():
            name = weight_name(layer, letter)
            weight = found.get(name)
            if weight is None:
                raise ValueError(f"{path}: {name} is missing; are these gates of another model?")
            if tuple(weight.shape) != shape:
                raise ValueError(f"{path}: {name} is {list(weight.shape)}, expected {list(shape)}; are these gates of another model?")
            if not torch.isfinite(weight).all():
                raise ValueError(f"{path}: {name} has NaN or infinite values")
            layers[-1][letter] = weight.float()
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
    tensors = {weight_name(layer, letter): weight.detach().cpu().contiguous()
               for layer, weights in enumerate(layers) for letter, weight in weights.items()}
    for name, weight in tensors.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{folder}: {name} has NaN or infinite values, nothing is written")
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / f"{WEIGHTS}.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    replace(folder / "config.json", lambda path: path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n"))


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
