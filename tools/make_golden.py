#!/usr/bin/env python3
"""Writes tests/golden: inputs and outputs of every operation, from plain float64 formulas.

    python tools/make_golden.py [OUT]

The formulas are written here a second time, in torch and as directly as the paper states them
(arXiv 2410.13276), so that they check the C++ references too. RoPE tables come from transformers. The form:
safetensors, names `case/tensor`, settings as strings `case.key` in the metadata. The same values at every call.
"""
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file

POOLS = ("max", "min", "avg")


def pool(x, block, kinds):
    """[S, H, D] -> [n, H, D * len(kinds)], in the order max, min, avg; a partial block over its tokens."""
    rows = []
    for part in x.split(block):
        made = {"max": part.amax(0), "min": part.amin(0), "avg": part.mean(0)}
        rows.append(torch.cat([made[kind] for kind in POOLS if kind in kinds], -1))
    return torch.stack(rows)


def rope_angles(positions, inv_freq):
    """cos, sin [n, w]: the angle is rounded to f32, halves repeat (rotate-half)."""
    angles = (positions.float()[:, None] * inv_freq.float()[None]).double()
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """The first w features of x [n, H, d] turn."""
    w = cos.shape[-1]
    turned, rest = x[..., :w], x[..., w:]
    half = torch.cat([-turned[..., w // 2:], turned[..., :w // 2]], -1)
    return torch.cat([turned * cos[:, None] + half * sin[:, None], rest], -1)


def inv_freq_of(width, theta):
    return 1.0 / theta ** (torch.arange(0, width, 2).double() / width)


def kinds_of(name):
    return [kind for kind in POOLS if kind in name]


def gate(q, k, weight_q, weight_k, block, q_kinds, k_kinds, cos, sin):
    """One sequence. Returns everything between the inputs and the scores [Hq, n, n]."""
    heads, kv_heads = q.shape[1], k.shape[1]
    q_pooled, k_pooled = pool(q, block, q_kinds), pool(k, block, k_kinds)
    if weight_q is None:  # single form: a weight per query head, k repeated
        q_gate = q_pooled
        k_gate = torch.einsum("nhf,hfd->nhd", k_pooled.repeat_interleave(heads // kv_heads, 1), weight_k)
    else:
        q_gate = torch.einsum("nhf,hfd->nhd", q_pooled, weight_q)
        k_gate = torch.einsum("nhf,hfd->nhd", k_pooled, weight_k)
    q_gate, k_gate = rotate(q_gate, cos, sin), rotate(k_gate, cos, sin)
    keys = k_gate.repeat_interleave(heads // k_gate.shape[1], 1)
    scores = torch.einsum("rhd,nhd->hrn", q_gate, keys) / math.sqrt(q_gate.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return q_pooled, k_pooled, q_gate, k_gate, scores.masked_fill(future, torch.finfo(torch.float32).min)


def attention(q, k, v, scale, visible):
    """visible [Hq, T, S] -> o [T, Hq, D], lse [Hq, T], probabilities [Hq, T, S]."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (torch.einsum("thd,shd->hts", q, k) * scale).masked_fill(~visible, -math.inf)
    lse = scores.logsumexp(-1)
    p = (scores - lse[..., None]).exp().nan_to_num(0.0)
    return torch.einsum("hts,shd->thd", p, v), lse, p


def block_max(p, block):
    """[H, T, S] -> [H, ceil(T / block), ceil(S / block)]"""
    return torch.stack([torch.stack([c.amax((-2, -1)) for c in r.split(block, 2)], -1)
                        for r in p.split(block, 1)], 1)


class File:
    def __init__(self):
        self.tensors, self.settings = {}, {}

    def add(self, case, settings, **tensors):
        for key, value in settings.items():
            self.settings[f"{case}.{key}"] = str(value)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensor = tensor.float()
            self.tensors[f"{case}/{name}"] = tensor.detach().contiguous()

    def save(self, folder, name):
        save_file(self.tensors, folder / f"{name}.safetensors", metadata=self.settings)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64).float().double()  # values that f32 holds exactly


def gates(single):
    file = File()
    cases = ([("a", 32, 2, 1, 32, 32, 101, "Qavg_Kmaxminavg"), ("b", 64, 3, 3, 64, 64, 128, "Qavg_Kmaxminavg")]
             if single else
             [("a", 16, 4, 2, 16, 16, 67, "Qmaxavg_Kmaxmin"), ("b", 32, 2, 1, 24, 16, 65, "Qmaxminavg_Kavg"),
              ("c", 16, 2, 2, 16, 32, 48, "Qmin_Kminavg")])
    for case, block, heads, kv_heads, dim, gate_dim, length, kind in cases:
        q_kinds, k_kinds = map(kinds_of, kind.split("_"))
        q, k = randn(length, heads, dim), randn(length, kv_heads, dim)
        weight_k = randn(heads if single else kv_heads, dim * len(k_kinds), gate_dim) * 0.1
        weight_q = None if single else randn(heads, dim * len(q_kinds), gate_dim) * 0.1
        weight_k, weight_q = weight_k.float().double(), None if single else weight_q.float().double()
        positions = torch.arange(0, length, block)
        inv_freq = inv_freq_of(gate_dim, 10000.0)
        cos, sin = rope_angles(positions, inv_freq)
        q_pooled, k_pooled, q_gate, k_gate, scores = gate(q, k, weight_q, weight_k, block, q_kinds,
                                                          k_kinds, cos, sin)
        more = {} if single else {"weight_q": weight_q}
        file.add(case, {"B": block, "D": dim, "d": gate_dim, "Hq": heads, "Hk": kv_heads, "S": length, "b": 1,
                        "type": kind, "double": not single, "rope_type": "default", "rope_theta": 10000.0,
                        "attention_factor": 1.0, **({} if single else {"family": "qwen2"})},
                 q=q[None], k=k[None], weight_k=weight_k, positions=positions.int(), inv_freq=inv_freq,
                 cos=cos, sin=sin, q_pooled=q_pooled[None], k_pooled=k_pooled[None], q_gate=q_gate[None],
                 k_gate=k_gate[None], scores=scores[None], prob=scores.softmax(-1)[None], **more)
    return file


def pooled():
    file = File()
    for case, block, heads, kv_heads, dim, length in [("a", 32, 4, 2, 40, 97), ("b", 16, 2, 1, 16, 64)]:
        q, k, v = randn(length, heads, dim), randn(length, kv_heads, dim), randn(length, kv_heads, dim)
        visible = torch.ones(heads, length, length, dtype=torch.bool).tril()
        o, lse, p = attention(q, k, v, dim ** -0.5, visible)
        pooled_map = block_max(p, block)
        file.add(case, {"B": block, "D": dim, "Hq": heads, "Hk": kv_heads, "S": length, "b": 1}, q=q[None],
                 k=k[None], v=v[None], o=o[None], lse=lse[None], map=pooled_map[None],
                 map_normalised=(pooled_map / pooled_map.sum(-1, keepdim=True))[None])
    return file


def distill_loss():
    file = File()
    block, heads, kv_heads, dim, length = 16, 4, 2, 16, 140
    n = -(-length // block)
    skipped = n // 4
    q, k = randn(length, heads, dim), randn(length, kv_heads, dim)
    weight_k = (randn(heads, 3 * dim, dim) * 0.1).float().double().requires_grad_()
    inv_freq = inv_freq_of(dim, 10000.0)
    cos, sin = rope_angles(torch.arange(0, length, block), inv_freq)
    token_cos, token_sin = rope_angles(torch.arange(length), inv_freq)
    visible = torch.ones(heads, length, length, dtype=torch.bool).tril()
    _, _, p = attention(rotate(q, token_cos, token_sin), rotate(k, token_cos, token_sin), k, dim ** -0.5,
                        visible)
    target = block_max(p, block)
    target = target / target.sum(-1, keepdim=True)
    *_, scores = gate(q, k, None, weight_k, block, ["avg"], POOLS, cos, sin)
    log_p = scores.log_softmax(-1)
    kl = torch.where(target > 0, target * (target.clamp_min(1e-300).log() - log_p), 0.0)[:, skipped:]
    mse = (scores.softmax(-1) - target) ** 2
    loss, loss_mse = kl.sum() / (heads * (n - skipped) * n), mse.mean()
    scores_grad, weight_grad = torch.autograd.grad(loss, [scores, weight_k], retain_graph=True)
    (scores_grad_mse,) = torch.autograd.grad(loss_mse, [scores])
    file.add("a", {"B": block, "D": dim, "d": dim, "Hq": heads, "Hk": kv_heads, "S": length, "b": 1,
                   "gate_loss_scale": 10.0, "rope_type": "default", "rope_theta": 10000.0,
                   "rows_left_out": skipped},
             q=q[None], k=k[None], weight_k=weight_k, cos=cos, sin=sin, token_cos=token_cos,
             token_sin=token_sin, scores=scores[None], target=target[None], loss=loss, loss_mse=loss_mse,
             scores_grad=scores_grad[None], scores_grad_mse=scores_grad_mse[None],
             weight_k_grad=weight_grad)
    return file


def selection():
    file = File()
    heads, n = 2, 23
    # Distinct by construction: a shuffled grid, so that no rank is in doubt.
    scores = torch.stack([torch.randperm(n * n).reshape(n, n) for _ in range(heads)]).double() / 40
    scores = scores.float().masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1),
                                        torch.finfo(torch.float32).min)
    prob = scores.softmax(-1)
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    tensors = {}
    for last_dense in (0, 1):
        last = torch.zeros(n, n, dtype=torch.bool)
        if last_dense:
            last[-2:] = True
        for nz in (0.1, 0.3, 0.5):
            k = max(1, int((1 - math.sqrt(1 - nz)) * n))
            best = torch.zeros_like(scores, dtype=torch.bool).scatter_(
                -1, scores.topk(k, -1).indices, True)
            tensors[f"nz_ratio_{nz}/last_dense_{last_dense}"] = ((best | last) & causal).byte()[None]
        for t in (0.0005, 0.005, 0.05):
            tensors[f"threshold_{t}/last_dense_{last_dense}"] = (((prob > t) | last) & causal).byte()[None]
    file.add("a", {"b": 1, "H": heads, "n": n}, scores=scores[None], prob=prob[None], **tensors)
    return file


def sparse():
    file = File()
    for case, block, heads, kv_heads, list_heads, dim, q_lens, k_lens in [
            ("a", 16, 4, 2, 4, 24, [70, 33], [70, 81]), ("b", 32, 7, 1, 1, 64, [50], [178])]:
        cu_q = torch.tensor([0, *q_lens]).cumsum(0).int()
        cu_k = torch.tensor([0, *k_lens]).cumsum(0).int()
        rows, columns = -(-max(q_lens) // block), -(-max(k_lens) // block)
        mask = torch.rand(len(q_lens), list_heads, rows, columns) < 0.4
        q, k = randn(sum(q_lens), heads, dim), randn(sum(k_lens), kv_heads, dim)
        v = randn(sum(k_lens), kv_heads, dim)
        outs, lses = [], []
        for b, (len_q, len_k) in enumerate(zip(q_lens, k_lens)):
            position = torch.arange(len_q) + len_k - len_q
            row = torch.arange(len_q) // block
            mask[b, :, row, position // block] = True  # a row's own positions
            last = torch.full((rows,), -1).scatter_reduce(0, row, position // block, "amax")
            mask[b] &= torch.arange(columns)[None] <= last[:, None]
            keep = mask[b][:, row][:, :, torch.arange(len_k) // block]
            visible = keep.repeat_interleave(heads // list_heads, 0) & (
                torch.arange(len_k)[None] <= position[:, None])
            o, lse, _ = attention(q[cu_q[b]:cu_q[b + 1]], k[cu_k[b]:cu_k[b + 1]],
                                  v[cu_k[b]:cu_k[b + 1]], dim ** -0.5, visible)
            outs.append(o)
            lses.append(lse)
        file.add(case, {"B": block, "D": dim, "Hq": heads, "Hk": kv_heads, "list_heads": list_heads}, q=q, k=k,
                 v=v, cu_q=cu_q, cu_k=cu_k, mask=mask.byte(), o=torch.cat(outs), lse=torch.cat(lses, -1))
    return file


def rope():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    file = File()
    positions = torch.tensor([0, 1, 63, 64, 1000, 4095, 30000, 131008])
    file.tensors["positions"] = positions.int()
    kinds = {
        "default": {},
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 4.0},
        "llama3": {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192},
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 32768},
    }
    for kind, extra in kinds.items():
        config = LlamaConfig(hidden_size=64, num_attention_heads=1, rope_theta=10000.0,
                             max_position_embeddings=131072 if kind in ("llama3", "yarn") else 4096,
                             rope_scaling={"rope_type": kind, **extra} if extra else None)
        if kind == "default":
            inv_freq, factor = LlamaRotaryEmbedding(config).inv_freq, 1.0
        else:
            inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", **(
                {"seq_len": int(positions[-1]) + 1} if kind == "dynamic" else {}))
        cos, sin = rope_angles(positions, inv_freq)
        half = inv_freq.numel()
        file.add(kind, {"rope_type": kind, "head_dim": 64, "rope_theta": 10000.0,
                        "max_position_embeddings": config.max_position_embeddings, **extra},
                 inv_freq=inv_freq, attention_factor=torch.tensor(factor), cos=cos[:, :half] * factor,
                 sin=sin[:, :half] * factor)
    return file


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden")
    out.mkdir(parents=True, exist_ok=True)
    for name, make in {"gate_single": lambda: gates(True), "gate_double": lambda: gates(False),
                       "pooled_attn": pooled, "distill_loss": distill_loss, "select": selection,
                       "block_sparse_attn": sparse, "rope": rope}.items():
        torch.manual_seed(len(name))
        make().save(out, name)
        print(f"{out / name}.safetensors")


if __name__ == "__main__":
    main()
