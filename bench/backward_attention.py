#!/usr/bin/env python3
"""The backward of block-sparse attention on a GPU beside dense backwards, on the same inputs, in one process.

    python bench/backward_attention.py [--lengths 8k,32k] [--kv-heads 32,8] [--head-dims 128,64] [--append]

Writes results/<chip>/block_sparse_attn_backward.json. Exit status 1 where a gradient of seer is wrong.
"""
import argparse
import functools
import gc
import pathlib
import sys

import torch

import block_lists
import cases
import record
import rivals
import timing
from cases import BLOCK

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 2e-2  # of |gradient - reference| / |reference| of a row or column of blocks


class Seer:
    """Forward and backward through the ops; the lists are transposed within the backward."""
    name, note = "seer", ""

    def __init__(self, shape, inputs, grad_o, lists):
        self.inputs, self.grad_o = (inputs.q, inputs.k, inputs.v), grad_o
        self.rest = (*lists.packing.cu()[:3], *lists[:3], BLOCK, shape.scale, True)
        self.saved = self.forward()

    def forward(self):
        return torch.ops.seer.block_sparse_attn(*self.inputs, *self.rest)

    def backward(self):
        return torch.ops.seer.block_sparse_attn_backward(self.grad_o, *self.saved, *self.inputs, *self.rest)

    def both(self):
        o, lse = self.forward()
        return torch.ops.seer.block_sparse_attn_backward(self.grad_o, o, lse, *self.inputs, *self.rest)


class Rival:
    """An implementation of rivals.py through autograd."""

    def __init__(self, kind, shape, inputs, grad_o, lists):
        self.name, self.instance = kind.name, kind(shape)
        self.instance.prepare(inputs, lists)
        self.inputs = [x.detach().requires_grad_() for x in self.instance.inputs]
        self.instance.inputs, self.note = tuple(self.inputs), self.instance.note
        self.grad_o = grad_o.transpose(0, 1).contiguous().unsqueeze(0)
        self.o = self.forward()

    def forward(self):
        o = self.instance.run()
        return o[0] if isinstance(o, tuple) else o

    def backward(self):
        return torch.autograd.grad(self.o, self.inputs, self.grad_o, retain_graph=True)

    def both(self):
        return torch.autograd.grad(self.forward(), self.inputs, self.grad_o)


def weights(shape, inputs, saved, grad_o, head, queries, keys, seen):
    """P and dS in f32 of some queries and keys of one head; seen: which pairs count."""
    kv = head // (shape.heads_q // shape.heads_kv)
    q, k, v = inputs.q[queries, head].float(), inputs.k[keys, kv].float(), inputs.v[keys, kv].float()
    do, o = grad_o[queries, head].float(), saved[0][queries, head].float()
    p = (q @ k.T * shape.scale - saved[1][head, queries][:, None]).exp().masked_fill(~seen, 0)
    return p, p * (do @ v.T - (do * o).sum(1, keepdim=True)), q, k, do


def worst_error(shape, inputs, grad_o, lists, seer):
    """Of sampled rows (q) and columns (k, v), against f32."""
    mask = lists.per_query_head(shape.heads_q).to_mask()[0]
    grads, saved, group = seer.backward(), seer.saved, shape.heads_q // shape.heads_kv
    every = torch.arange(shape.len_k, device=grad_o.device)
    at = lambda block: slice(block * BLOCK, (block + 1) * BLOCK)
    far = lambda got, want: ((got.float() - want).norm() / want.norm()).item()
    errors = []
    for block in {0, 1, shape.rows // 3, shape.rows - 1}:
        for head in (0, shape.heads_q - 1):
            seen = mask[head, block].repeat_interleave(BLOCK) & (every <= every[at(block)][:, None])
            _, ds, _, k, _ = weights(shape, inputs, saved, grad_o, head, at(block), slice(None), seen)
            errors.append(far(grads[0][at(block), head], shape.scale * ds @ k))
        for kv in (0, shape.heads_kv - 1):
            dk = dv = 0
            for head in range(kv * group, (kv + 1) * group):
                seen = mask[head, :, block].repeat_interleave(BLOCK)[:, None] & (every[at(block)] <= every[:, None])
                p, ds, q, _, do = weights(shape, inputs, saved, grad_o, head, slice(None), at(block), seen)
                dk, dv = dk + shape.scale * ds.T @ q, dv + p.T @ do
            errors += [far(grads[1][at(block), kv], dk), far(grads[2][at(block), kv], dv)]
    return max(errors)


def measure(shape, densities, args):
    """Rows of one shape."""
    inputs = rivals.Inputs(shape, "cuda")
    grad_o = torch.randn_like(inputs.q)
    todo = [(Seer, d) for d in densities] + [(functools.partial(Rival, kind), None) for kind in (rivals.Flash2, rivals.Cudnn)]
    todo += [(functools.partial(Rival, rivals.Flex), d) for d in densities if "FlexAttention" in args.only]
    rows, calls = [], {}
    for make, density in todo:
        lists = density and block_lists.make_lists("random", density, shape.heads_q, shape.rows, shape.blocks, "cuda", seed=1)
        row = {"implementation": "seer" if make is Seer else make.args[0].name, "len_q": shape.len_q, "len_k": shape.len_k,
               "heads_q": shape.heads_q, "heads_kv": shape.heads_kv, "head_dim": shape.head_dim, "dtype": shape.dtype,
               "wanted_density": density or 1.0, "status": "ok", "note": ""}
        listed = lists.listed if lists else shape.visible * shape.heads_q
        row["density"] = listed / (shape.visible * shape.heads_q)
        rows.append((row, shape.kept_flop(listed)))
        try:
            instance = make(shape, inputs, grad_o, lists)
            row["note"] = instance.note
            if make is Seer:
                row["error"] = worst_error(shape, inputs, grad_o, lists, instance)
                if not row["error"] <= LIMIT:
                    row["status"] = f"wrong: a gradient is off by {row['error']:.2e}"
            for what in ("forward", "backward", "both"):
                calls[len(rows) - 1, what] = getattr(instance, what)
        except Exception as error:
            row["status"] = rivals.one_line(error)
    times = timing.round_robin(calls, args.runs, args.seconds)
    for (i, what), found in times.items():
        row, flop = rows[i]
        if isinstance(found, Exception):
            row["status"] = rivals.one_line(found)
        else:
            row[f"{what}_ms"] = found.median
            if what == "backward":  # five products of which the forward has two
                row["credited_tflops"] = 2.5 * flop / found.median * 1e-9
    for row, _ in rows:
        print(f"  {row['implementation']:24}{row['density']:.3f}  " + "  ".join(
            f"{what} {row[f'{what}_ms']:9.3f}" for what in ("forward", "backward", "both") if f"{what}_ms" in row) +
            f"  {row.get('credited_tflops', 0):6.1f} TFLOP/s  {row['status']}  {row['note']}", flush=True)
    return [row for row, _ in rows]


def main():
    several = lambda kind: lambda text: [kind(part) for part in text.split(",")]
    tokens = lambda text: int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--lengths", type=several(tokens), default=[32768, 8192, 131072])
    p.add_argument("--kv-heads", type=several(int), default=[32, 8])
    p.add_argument("--head-dims", type=several(int), default=[128, 64])
    p.add_argument("--densities", type=several(float), default=[.1, .5])
    p.add_argument("--only", type=several(str), default=[], help="FlexAttention: measured, too")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--seconds", type=float, default=0.2)
    p.add_argument("--out", default=str(ROOT / "results"))
    p.add_argument("--append", action="store_true", help="keep the shapes of the file that this run does not measure")
    args = p.parse_args()
    path = pathlib.Path(args.out) / record.slug(torch.cuda.get_device_name()) / "block_sparse_attn_backward.json"
    old = record.read(path) if args.append and path.exists() else None
    command = record.portable(" ".join(["python", "bench/backward_attention.py", *sys.argv[1:]]))
    rows, failed = [], {}
    for length in args.lengths:
        for kv_heads in args.kv_heads:
            for head_dim in args.head_dims:
                shape = cases.Shape(length, length, 32, kv_heads, head_dim, "bf16")
                print(shape, flush=True)
                try:
                    rows += measure(shape, args.densities, args)
                except Exception as error:
                    failed[str(shape)] = rivals.one_line(error)
                    print(f"  failed: {failed[str(shape)]}")
                gc.collect()
                torch.cuda.empty_cache()
                made = record.make(command, timing.METHOD, {}, rows, failed, "block_sparse_attn_backward")
                record.write(path, record.merge(old, made) if old else made)
    if failed or any(r["implementation"] == "seer" and r["status"] != "ok" for r in rows):
        sys.exit("a gradient of seer is wrong or missing")


if __name__ == "__main__":
    main()
