#!/usr/bin/env python3
"""Dense attention with the pooled map, and the map alone, on a GPU beside dense attention without it, on the same inputs, in one
process.

    python bench/pooled_attention.py [--lengths 8k,32k,128k] [--kv-heads 32,8] [--head-dims 128] [--dtypes bf16]

Writes results/<chip>/pooled_attn.json after every shape. Exit status 1 where an output of seer is wrong or missing.
"""
import argparse
import contextlib
import gc
import pathlib
import sys

import torch

import cases
import check
import record
import rivals
import timing
from cases import BLOCK

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICE = "cuda"
MAP_LIMIT = 1e-3  # of |map - reference| / |reference| of a row


class Pooled(rivals.Implementation):
    """o, lse and the normalised map, of each query head, or the largest of each group."""
    name = "seer"

    def __init__(self, shape, group_max):
        super().__init__(shape)
        self.group_max = group_max

    def prepare(self, inputs, lists):
        s = self.shape
        self.args = (inputs.q, inputs.k, inputs.v, *s.packing(inputs.q.device).cu()[:3], s.rows, s.blocks, BLOCK, BLOCK,
                     s.scale, True, self.group_max, True)

    def run(self):
        return torch.ops.seer.pooled_attn(*self.args)

    def extra_bytes(self):
        """Memory that a call takes beside its outputs."""
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        outputs = self.run()
        torch.cuda.synchronize()
        own = torch.cuda.memory_allocated() - before
        del outputs
        return torch.cuda.max_memory_allocated() - before - own


class MapAlone(Pooled):
    """lse and the map, without values."""
    name = "seer, map alone"

    def prepare(self, inputs, lists):
        super().prepare(inputs, lists)
        self.args = self.args[:2] + self.args[3:]

    def run(self):
        return torch.ops.seer.pooled_map(*self.args)


def parse(argv=None):
    def tokens(text):
        return int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)

    def several(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, kind, default in (("lengths", tokens, "8k,32k,128k"), ("kv-heads", int, "32,8"),
                                ("head-dims", int, "128"), ("dtypes", str, "bf16")):
        p.add_argument(f"--{name}", type=several(kind), default=several(kind)(default), help=f"default {default}")
    p.add_argument("--heads", type=int, default=32, help="query heads (default 32)")
    p.add_argument("--runs", type=int, default=5, help="timed calls, at least (default 5)")
    p.add_argument("--seconds", type=float, default=0.2, help="timed GPU time, at least (default 0.2)")
    p.add_argument("--out", default=str(ROOT / "results"), help="folder of results; empty: none")
    p.add_argument("--append", action="store_true", help="keep the shapes of the file that this run does not measure")
    args = p.parse_args(argv)
    if not set(args.dtypes) <= set(cases.DTYPES):
        p.error("--dtypes: bf16, f16")
    return args


def map_of_row(shape, q, k, head, row):
    """[blocks] f32: the largest attention weight of each block in a row of 64 queries."""
    queries = torch.arange(row * BLOCK, row * BLOCK + BLOCK, device=q.device)
    end = (row + shape.offset + 1) * BLOCK
    keys = torch.arange(end, device=q.device)
    scores = q[queries, head].float() @ k[:end, head * shape.heads_kv // shape.heads_q].float().T * shape.scale
    scores.masked_fill_(keys > queries[:, None] + shape.offset * BLOCK, -torch.inf)
    out = torch.zeros(shape.blocks, device=q.device)
    out[:end // BLOCK] = scores.softmax(-1).view(BLOCK, -1, BLOCK).amax((0, 2))
    return out


def check_map(shape, inputs, pooled, pairs, group_max):
    """The largest relative error of the sampled rows."""
    group = shape.heads_q // shape.heads_kv if group_max else 1
    errors = []
    for head, row in pairs:
        first = head // group * group
        want = torch.stack([map_of_row(shape, inputs.q, inputs.k, h, row) for h in range(first, first + group)]).amax(0)
        want /= want.sum()
        errors.append((pooled[head // group, row] - want).norm() / want.norm())
    return torch.stack(errors).max().item()  # NaN stays the largest


def measure(shape, args):
    """Rows of one shape."""
    inputs = rivals.Inputs(shape, DEVICE)
    instances = {(kind.name, "q"): kind(shape, False) for kind in (Pooled, MapAlone)}
    if shape.heads_kv != shape.heads_q:
        instances["seer", "kv"] = Pooled(shape, True)
    for kind in (rivals.Cudnn, rivals.Flash2):
        instances[kind.name, None] = kind(shape)
    rows, ready = {}, {}
    for key, instance in instances.items():
        rows[key] = {"implementation": key[0], "map_heads": key[1], "heads_q": shape.heads_q,
                     "heads_kv": shape.heads_kv, "head_dim": shape.head_dim, "len_q": shape.len_q, "len_k": shape.len_k,
                     "block": BLOCK, "dtype": shape.dtype, "median_ms": None, "min_ms": None, "max_ms": None, "runs": 0,
                     "tflops": None, "extra_mib": None, "status": instance.can_run()}
        if not rows[key]["status"]:
            try:
                instance.prepare(inputs, None)
                ready[key] = instance
            except Exception as error:  # a rival's failure is a result
                rows[key]["status"] = rivals.one_line(error)
        rows[key]["note"] = instance.note
    pairs_of_tokens = shape.len_q * (shape.len_k - shape.len_q) + shape.len_q * (shape.len_q + 1) / 2
    flop = 2 * shape.head_dim * shape.heads_q * pairs_of_tokens
    for key, result in timing.round_robin({k: i.run for k, i in ready.items()}, args.runs, args.seconds).items():
        if isinstance(result, Exception):
            rows[key]["status"] = rivals.one_line(result)
        else:
            products = 1 if isinstance(instances[key], MapAlone) else 2
            rows[key].update(result.row(), tflops=products * flop / result.median * 1e-9)
    sampled = check.sample(shape, None, shape.heads_q, count=8)
    found = check.references(shape, inputs.q, inputs.k, inputs.v, None, sampled)
    for key, instance in ready.items():
        if rows[key]["median_ms"] is None:
            continue
        try:
            result = instance.run()
            *o, lse, pooled = result if isinstance(instance, Pooled) else (*instance.output(result), None)
            rows[key].update(check.compare(shape, o[0] if o else None, lse, found))
            if pooled is not None:
                off = check_map(shape, inputs, pooled, sampled, instance.group_max)
                rows[key]["max_map_error"] = off if off < float("inf") else None
                if rows[key]["status"] == "ok" and not off <= MAP_LIMIT:
                    rows[key]["status"] = f"wrong: map differs by {off:.2e}, limit {MAP_LIMIT:g}"
                del result, o, lse, pooled
                if DEVICE == "cuda":
                    rows[key]["extra_mib"] = instance.extra_bytes() / 2 ** 20
        except Exception as error:
            rows[key]["status"] = rivals.one_line(error)
    return list(rows.values())


def show(rows):
    for r in rows:
        times = (f"{r['median_ms']:9.3f} ms ({r['min_ms']:.3f}-{r['max_ms']:.3f}, {r['runs']}) {r['tflops']:6.1f} TFLOP/s"
                 if r["median_ms"] else "-")
        extra = f"{r['extra_mib']:7.1f} MiB extra" if r["extra_mib"] is not None else ""
        print(f"  {r['implementation']:24}{r['map_heads'] or '-':4}{times}  {extra}  {r['status']}  {r['note']}", flush=True)


def main():
    args = parse()
    if not torch.cuda.is_available():
        sys.exit("pooled_attention.py: torch finds no GPU")
    path = args.out and pathlib.Path(args.out) / record.slug(torch.cuda.get_device_name()) / "pooled_attn.json"
    old = record.read(path) if args.append and path and path.exists() else None
    command = record.portable(" ".join(["python", "bench/pooled_attention.py", *sys.argv[1:]]))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    rows, failed = [], {}
    for dtype in args.dtypes:
        for head_dim in args.head_dims:
            for length in args.lengths:
                for kv_heads in args.kv_heads:
                    shape = cases.Shape(length, length, args.heads, kv_heads, head_dim, dtype)
                    print(f"{shape}:", flush=True)
                    try:
                        with torch.no_grad():
                            new = measure(shape, args)
                        show(new)
                        rows += new
                    except Exception as error:  # memory for the inputs, or a kernel that broke the context
                        failed[str(shape)] = rivals.one_line(error)
                        print(f"  failed: {failed[str(shape)]}")
                    gc.collect()
                    with contextlib.suppress(RuntimeError):  # of a broken context
                        torch.cuda.empty_cache()
                    made = record.make(command, timing.METHOD, {}, rows, failed) | {"operation": "pooled_attn"}
                    if path:
                        record.write(path, record.merge(old, made) if old else made)
    bad = sum(r["implementation"].startswith("seer") and r["status"] != "ok" for r in rows)
    if bad or failed:
        sys.exit(f"{bad} results of seer are wrong or missing, {len(failed)} shapes failed")


if __name__ == "__main__":
    main()
