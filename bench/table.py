#!/usr/bin/env python3
"""Markdown tables of results/<chip>/block_sparse_attn.json: seer beside its rivals of the same run.

    python bench/table.py FILE [--lists gate] [--head-dim 128] [--dtype bf16]
"""
import argparse
import pathlib
import sys

import record

FLASH, CUDNN, FLEX = "torch FlashAttention-2", "torch cuDNN", "FlexAttention"
SPARSE = (FLEX, "FlashInfer", "cuDNN block-sparse")
OTHERS = ("flash-attn", "flash-attn 3", *SPARSE[1:])  # shown where they were measured
SLOWER = " ⚠"


def variant_of(row):
    return row["lists"], row["wanted_density"], row["list_heads"]


def compared(rows):
    """Each measured row of seer with the times of its rivals: [(row, {implementation: ms, None if not measured})].

    Only right outputs count. Dense rivals are those of the same group, sparse ones those of the same lists.
    """
    out = []
    for own in rows:
        if own["implementation"] != "seer" or own["status"] != "ok":
            continue
        rivals = {r["implementation"]: r["median_ms"] if r["status"] == "ok" else None for r in rows
                  if r["implementation"] != "seer" and record.group_of(r) == record.group_of(own) and
                  (r["lists"] == "dense" or variant_of(r) == variant_of(own))}
        out.append((own, rivals))
    order = lambda row: (row["dtype"], row["head_dim"], row["len_k"], -row["len_q"], -row["heads_kv"], row["lists"],
                         row["wanted_density"], -row["list_heads"])
    return sorted(out, key=lambda pair: order(pair[0]))


def fastest_dense(rivals):
    """Milliseconds of the fastest dense rival, None where there is none."""
    return min((ms for name, ms in rivals.items() if ms and name not in SPARSE), default=None)


def tokens(row):
    keys = f"{row['len_k'] // 1024}k"
    return keys if row["len_q"] == row["len_k"] else f"{row['len_q'] // 1024}k on {keys}"


def ratio(ms, own):
    """Rival over seer; marked where seer is the slower one."""
    if not ms:
        return "-"
    return f"**{ms / own:.2f}x**" if ms >= own else f"{ms / own:.2f}x{SLOWER}"


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("---" for _ in header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def table(data, keep=lambda row: True):
    """The table, its reading, and what was not measured and why."""
    pairs = compared(list(filter(keep, data["rows"])))
    extra = [name for name in OTHERS if any(rivals.get(name) for _, rivals in pairs)]
    header = ["tokens", "heads", "D", "dtype", "lists", "density", "seer", "kept TFLOP/s", "against FA2",
              "against cuDNN", "against FlexAttention", *(f"against {name}" for name in extra)]
    lines = []
    for own, rivals in pairs:
        per = "" if own["list_heads"] == own["heads_q"] else " per kv head"
        lines.append([tokens(own), f"{own['heads_q']}/{own['heads_kv']}", own["head_dim"], own["dtype"],
                      own["lists"] + per, f"{own['density']:.3f}", f"{own['median_ms']:.3f} ms",
                      f"{own['kept_tflops']:.0f}",
                      *(ratio(rivals.get(name), own["median_ms"]) for name in (FLASH, CUDNN, FLEX, *extra))])
    reasons = {f"{r['implementation']}, {tokens(r)}: {r['status']}" for r in data["rows"]
               if keep(r) and r["status"] != "ok"}
    reasons |= {f"{name}: {state}" for name, state in data["rivals"].items() if state.startswith("not ")}
    slower = f";{SLOWER}: seer is slower" if SLOWER in str(lines) else ""
    reasons |= {f"{group}: {reason}" for group, reason in data.get("failed", {}).items()}
    notes = [f"\"x\": how many times longer the rival takes{slower}. "
             f"FA2 and cuDNN are torch's and compute everything; {', '.join(SPARSE)} compute the same lists.",
             *(["Not in the table: " + "; ".join(sorted(reasons)) + "."] if reasons else []),
             f"{data['chip']}, torch {data['versions']['torch']}, CUDA {data['versions']['cuda']}, cuDNN "
             f"{data['versions']['cudnn']}, driver {data['versions']['driver']}, {data['date']}; `{record.portable(data['command'])}`"]
    return markdown(header, lines) + "\n\n" + "\n\n".join(notes)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("file", type=pathlib.Path)
    p.add_argument("--lists", help="random or gate")
    p.add_argument("--head-dim", type=int)
    p.add_argument("--dtype")
    args = p.parse_args()
    try:
        data = record.read(args.file)
    except (OSError, ValueError) as error:
        sys.exit(f"{args.file}: {error}")
    wanted = {"head_dim": args.head_dim, "dtype": args.dtype}
    print(table(data, lambda r: all(v is None or r[k] == v for k, v in wanted.items()) and
                (args.lists is None or r["lists"] in (args.lists, "dense") or r["wanted_density"] >= 1)))


if __name__ == "__main__":
    main()
