#!/usr/bin/env python3
"""Block-sparse attention on a GPU beside dense and block-sparse rivals, on the same inputs, in one process.

    python bench/prefill_attention.py --cases quick|targets|full|custom [--append | --resume] [filters]

Writes results/<chip>/block_sparse_attn.json after every group (a shape with all its lists). Exit status 1 where an
output of seer is wrong or missing.
"""
import argparse
import contextlib
import gc
import pathlib
import sys
import time

import torch

import block_lists
import cases
import check
import record
import rivals
import timing

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICE = "cuda"


def parse(argv=None):
    def tokens(text):
        return int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)

    def several(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cases", choices=[*cases.PRESETS, "custom"], default="targets",
                   help="a preset, which the filters below cut down, or custom: all combinations of the filters")
    for name, kind, text in (("lengths", tokens, "keys, as 32k,128k"), ("densities", float, "of the visible blocks"),
                             ("lists", str, "random, gate"), ("kv-heads", int, "32, 8"), ("head-dims", int, "64, 128"),
                             ("dtypes", str, "bf16, f16"), ("list-heads", str, "q, kv: one list for each")):
        p.add_argument(f"--{name}", type=several(kind), help=text)
    p.add_argument("--queries", type=tokens, help="custom: the last so many tokens only (a chunk)")
    p.add_argument("--only", type=several(str), help="implementations, by name; seer is always one")
    p.add_argument("--runs", type=int, default=5, help="timed calls, at least (default 5)")
    p.add_argument("--seconds", type=float, default=0.2, help="timed GPU time, at least (default 0.2)")
    p.add_argument("--budget", type=float, help="seconds after which no further group is started")
    p.add_argument("--flex-tune", action="store_true", help="try warps and stages of FlexAttention first")
    p.add_argument("--out", default=str(ROOT / "results"), help="folder of results; empty: none")
    p.add_argument("--append", action="store_true", help="keep the groups of the file that this run does not measure")
    p.add_argument("--resume", action="store_true", help="as --append, and skip groups that the file has")
    args = p.parse_args(argv)
    known = {kind.name for kind in rivals.ALL}
    if args.only and not set(args.only) <= known:
        p.error(f"--only: want some of {', '.join(sorted(known))}")
    if not set(args.dtypes or ()) <= set(cases.DTYPES) or not set(args.lists or ()) <= set(cases.KINDS):
        p.error("--dtypes: bf16, f16; --lists: random, gate")
    return args


def choose(args):
    """[(Shape, [Variant])] that the arguments ask for."""
    if args.cases == "custom":
        groups = []
        for dtype in args.dtypes or ["bf16"]:
            for head_dim in args.head_dims or [128]:
                for kv_heads in args.kv_heads or [32]:
                    for length in args.lengths or [32768]:
                        shape = cases.Shape(args.queries or length, length, 32, kv_heads, head_dim, dtype)
                        groups.append((shape, cases.variants(shape, args.densities or [.1], args.lists or cases.KINDS,
                                                             args.list_heads or ["q"])))
        return groups
    within = lambda value, wanted: wanted is None or value in wanted
    groups = []
    for shape, variants in cases.PRESETS[args.cases]():
        heads = {"q": shape.heads_q, "kv": shape.heads_kv}
        wanted = args.list_heads and [heads[name] for name in args.list_heads]
        kept = [v for v in variants if within(v.density, args.densities) and within(v.list_heads, wanted) and
                (within(v.lists, args.lists) or v.density >= 1)]
        if kept and all((within(shape.len_k, args.lengths), within(shape.heads_kv, args.kv_heads),
                         within(shape.head_dim, args.head_dims), within(shape.dtype, args.dtypes))):
            groups.append((shape, kept))
    return groups


def row_of(shape, variant, lists, instance):
    """A row without its measurements."""
    if lists is None:
        listed, density, kind, heads = shape.visible * shape.heads_q, 1.0, "dense", None
    else:
        listed, kind, heads = lists.listed * shape.heads_q // variant.list_heads, variant.lists, variant.list_heads
        density = listed / (shape.visible * shape.heads_q)
    row = {"implementation": instance.name, "heads_q": shape.heads_q, "heads_kv": shape.heads_kv,
           "head_dim": shape.head_dim, "len_q": shape.len_q, "len_k": shape.len_k, "block": cases.BLOCK,
           "density": density, "wanted_density": 1.0 if variant is None else variant.density, "lists": kind,
           "list_heads": heads, "dtype": shape.dtype, "note": instance.note, "median_ms": None, "min_ms": None,
           "max_ms": None, "runs": 0, "kept_tflops": None}
    return row, shape.kept_flop(listed)


def run_poisoned(instance, like):
    """A call whose output would most likely show places that it does not write: freed NaN memory is reused."""
    torch.full_like(like, float("nan"))
    return instance.output(instance.run())


def check_variant(shape, inputs, lists, measured, rows):
    """Fills in errors and status of all implementations of one set of lists. measured: [(instance, key)]."""
    pairs = check.sample(shape, lists, shape.heads_q if lists is None else lists.count.shape[0])
    found = {causal: check.references(shape, inputs.q, inputs.k, inputs.v, lists, pairs, causal)
             for causal in {instance.causal for instance, _ in measured}}
    own = None
    for instance, key in measured:
        try:
            o, lse = run_poisoned(instance, inputs.q)
            rows[key].update(check.compare(shape, o, lse, found[instance.causal]))
            if instance.name == "seer":
                own = o, rows[key]
            elif own and instance.sparse and instance.causal and rows[key]["status"] == "ok":
                off = check.whole_difference(own[0], o)
                own[1].setdefault("whole_difference", {})[instance.name] = off if off < float("inf") else None
                if own[1]["status"] == "ok" and not off <= 2 * check.LIMITS[shape.dtype]:
                    own[1]["status"] = f"wrong: differs from {instance.name} by {off:.2e} over all rows"
        except Exception as error:
            rows[key]["status"] = rivals.one_line(error)


def measure(shape, variants, kinds, args):
    """Rows of one group."""
    clock, spent = time.perf_counter(), {}

    def lap(name):
        nonlocal clock
        torch.cuda.synchronize()
        spent[name], clock = time.perf_counter() - clock, time.perf_counter()

    inputs = rivals.Inputs(shape, DEVICE)
    lists = {v: block_lists.make_lists(v.lists, v.density, v.list_heads, shape.rows, shape.blocks, DEVICE, seed=i)
             for i, v in enumerate(variants)}
    lists[None] = None  # dense
    lap("lists")
    rows, flop, instances = {}, {}, {}
    for variant, of in lists.items():
        for kind in kinds:
            if kind.sparse != (variant is not None):
                continue
            instance, key = kind(shape), (kind.name, variant)
            rows[key], flop[key] = row_of(shape, variant, of, instance)
            rows[key]["status"] = instance.can_run()
            if not rows[key]["status"]:
                try:
                    instance.prepare(inputs, of)
                    instances[key] = instance
                except Exception as error:
                    rows[key]["status"] = rivals.one_line(error)
            rows[key]["note"] = instance.note
    lap("prepare")
    times = timing.round_robin({key: instance.run for key, instance in instances.items()}, args.runs, args.seconds)
    for key, result in times.items():
        if isinstance(result, Exception):
            rows[key]["status"] = rivals.one_line(result)
        else:
            rows[key].update(result.row(), kept_tflops=flop[key] / result.median * 1e-9)
    lap("time")
    for variant, of in lists.items():
        measured = [(instance, key) for key, instance in instances.items()
                    if key[1] == variant and isinstance(times[key], timing.Times)]
        if measured:
            check_variant(shape, inputs, of, measured, rows)
    lap("check")
    print(f"  {sum(spent.values()):.1f} s: " + ", ".join(f"{name} {s:.1f}" for name, s in spent.items()))
    return list(rows.values())


def show(rows):
    for r in rows:
        what = "dense" if r["lists"] == "dense" else f"{r['lists']} {r['density']:.3f} x{r['list_heads']}"
        times = (f"{r['median_ms']:9.3f} ms ({r['min_ms']:.3f}-{r['max_ms']:.3f}, {r['runs']}) "
                 f"{r['kept_tflops']:6.1f} TFLOP/s" if r["median_ms"] else "-")
        print(f"  {r['implementation']:24}{what:18}{times}  {r['status']}  {r['note']}", flush=True)


def main():
    begin, args = time.perf_counter(), parse()
    groups = choose(args)
    if not groups:
        sys.exit("no case is left: widen the filters")
    if not torch.cuda.is_available():
        sys.exit("prefill_attention.py: torch finds no GPU")
    rivals.Flex.tune = args.flex_tune
    path = args.out and pathlib.Path(args.out) / record.slug(torch.cuda.get_device_name()) / "block_sparse_attn.json"
    old = record.read(path) if (args.append or args.resume) and path and path.exists() else None
    done = {record.group_of(row) for row in old["rows"]} if old and args.resume else set()
    known = {k.name: k.missing() or k.version() for k in rivals.ALL if k.name != "seer"}
    kinds = [k for k in rivals.ALL if not k.missing() and (not args.only or k.name == "seer" or k.name in args.only)]
    command = record.portable(" ".join(["python", "bench/prefill_attention.py", *sys.argv[1:]]))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {len(groups)} groups; " +
          "; ".join(f"{name}: {state}" for name, state in known.items()))
    rows, bad, left, failed = [], 0, [], {}
    for shape, variants in groups:
        if tuple(getattr(shape, key) for key in record.GROUP) in done:
            print(f"{shape}: in the file")
            continue
        if args.budget and time.perf_counter() - begin > args.budget:
            left.append(str(shape))
            continue
        print(f"{shape}: {'; '.join(map(str, variants))}", flush=True)
        new = []
        try:
            with torch.no_grad():
                new = measure(shape, variants, kinds, args)
        except Exception as error:  # memory for the inputs, or a kernel that broke the context
            failed[str(shape)] = rivals.one_line(error)
            print(f"  failed: {failed[str(shape)]}")
        gc.collect()
        with contextlib.suppress(RuntimeError):  # of a broken context
            torch.cuda.empty_cache()
        show(new)
        bad += sum(r["implementation"] == "seer" and r["status"] != "ok" for r in new)
        rows += new
        made = record.make(command, timing.METHOD, known, rows, failed)
        if path:
            record.write(path, record.merge(old, made) if old else made)
    print(f"{time.perf_counter() - begin:.1f} s in all" + (f"; written: {path}" if path else ""))
    if left:
        print("not measured, the budget is used up (go on with --resume): " + "; ".join(left))
    if bad or failed:
        sys.exit(f"{bad} results of seer are wrong or missing, {len(failed)} groups failed")


if __name__ == "__main__":
    main()
