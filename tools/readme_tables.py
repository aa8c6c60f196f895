#!/usr/bin/env python3
"""Writes the tables of README.md from results/**/*.json.

    python tools/readme_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. --check changes nothing and fails where the
README differs from the results.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import record as gpu_record  # noqa: E402
import table as gpu_table  # noqa: E402

CHIP = "amd-epyc-2-threads-avx512bf16"
AVX2 = "amd-epyc-2-threads-avx2"
GPU = "nvidia-h200"


def load(name, chip=CHIP):
    return json.loads((ROOT / "results" / chip / f"{name}.json").read_text())


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("---" for _ in header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def source(record, name, chip=CHIP):
    return (f"{record['chip']}, {record['threads']} threads, torch {record['versions']['torch']}, "
            f"{record['date']}; `{record['command']}`; [{name}.json](results/{chip}/{name}.json)")


def quality():
    """Perplexity by method and sparsity, a column a text."""
    parts, records = {}, {}
    for text in ("books", "proofs"):
        records[text] = load(f"ppl_{text}")
        for row in records[text]["rows"]:
            parts[text, row["method"], row["sparsity"]] = row
    rows = []
    for method in ("dense", "oracle", "seer", "streaming", "untrained", "random"):
        for sparsity in ([0.0] if method == "dense" else [0.5, 0.7, 0.9]):
            cells = []
            for text in ("books", "proofs"):
                row, dense = parts[text, method, sparsity], parts[text, "dense", 0.0]
                cells.append(f"{row['perplexity']:.2f} (x{row['perplexity'] / dense['perplexity']:.3f})")
            density = parts["books", method, sparsity]["density"]
            label = {"seer": "**learned gates**", "oracle": "oracle (true map)", "random": "random + diagonal",
                     "streaming": "sink + sliding window", "untrained": "untrained gates"}.get(method, method)
            rows.append([label, "" if method == "dense" else f"{sparsity:.0%}", f"{density:.3f}", *cells])
    return (markdown(["blocks chosen by", "sparsity", "density", "books", "proofs"], rows) + "\n\n" +
            source(records["books"], "ppl_books"))


def speed():
    """Block-sparse attention beside torch's dense attention, at 32k; the files have more."""
    rows, sources = [], []
    for chip, cpu in ((CHIP, "AVX-512, bf16 dot products"), (AVX2, "AVX2 (`--avx2`)")):
        record = load("block_sparse_attn", chip)
        sources.append(source(record, "block_sparse_attn", chip))
        for head_dim in (64, 128):
            of = [r for r in record["rows"] if (r["head_dim"], r["len_q"]) == (head_dim, 32768)]
            rivals = {r["dtype"]: r["median_ms"] for r in of if r["implementation"] == "torch sdpa"}
            best = min(rivals.values())
            rows += [[cpu, head_dim, f"{r['density']:.3f}", r["dtype"], f"{r['median_ms']:.0f} ms",
                      f"{best:.0f} ms ({min(rivals, key=rivals.get)})",
                      f"**{best / r['median_ms']:.1f}x**", f"{r['kept_tflops'] * 1e3:.0f}"]
                     for r in of if r["implementation"] == "seer" and r["lists"] == "random"]
    return (markdown(["CPU has", "D", "density", "dtype", "seer", "torch, faster dtype", "speed-up",
                      "kept GFLOP/s"], rows) + "\n\n" + "\n\n".join(sources))


def others():
    """The pooled map, the gate and memory, one line each."""
    pooled, gate, prefill = load("pooled_attn"), load("attn_gate"), load("prefill")
    rows = []
    for head_dim in sorted({r["head_dim"] for r in pooled["rows"]}):
        of = [r for r in pooled["rows"] if r["head_dim"] == head_dim]
        best = min(r["median_ms"] for r in of if r["implementation"] == "torch sdpa")
        own = next(r["median_ms"] for r in of if r["implementation"] == "seer")
        rows.append([f"`pooled_attn`, {of[0]['len_q'] // 1024}k, D = {head_dim}, against torch's dense attention",
                     f"{own / best:.2f}x its time"])
    for length, head_dim in sorted({(r["len_q"], r["head_dim"]) for r in gate["rows"]}):
        of = {r["implementation"]: r["median_ms"] for r in gate["rows"]
              if (r["len_q"], r["head_dim"]) == (length, head_dim)}
        share = (of["seer attn_gate"] + of["seer block_select"]) / of["seer block_sparse_attn"]
        rows.append([f"gate and selection, {length // 1024}k, D = {head_dim}, of sparse attention's time at 90 %",
                     f"{share:.1%}"])
    peaks = ", ".join(f"{r['len_q'] // 1024}k: {r['peak_mib']:.0f} MiB" for r in prefill["rows"]
                      if r["implementation"] == "seer")
    rows.append(["sparse prefill of the embedded model, peak memory beyond the weights", peaks])
    return markdown(["what", "measured"], rows)


def gpu_source(record, name):
    v = record["versions"]
    return (f"{record['chip']}, torch {v['torch']}, cuDNN {v['cudnn']}, {record['date']}; "
            f"`{gpu_record.portable(record['command'])}`; [{name}.json](results/{GPU}/{name}.json)")


def gpu():
    """Block-sparse attention beside dense attention and FlexAttention: 32 kv heads, chunks also with 8."""
    record = load("block_sparse_attn", GPU)
    rows = []
    for own, rivals in gpu_table.compared(record["rows"]):
        is_chunk = own["len_q"] < own["len_k"]
        if own["list_heads"] != own["heads_q"] or not (is_chunk or own["heads_kv"] == own["heads_q"]):
            continue
        lists = {"gate": "gate-like"}.get(own["lists"], own["lists"]) if own["wanted_density"] < 1 else "all blocks"
        ms = own["median_ms"]
        rows.append([gpu_table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", lists, f"{own['density']:.3f}",
                     f"{ms:.2f} ms", f"{own['kept_tflops']:.0f}",
                     *(gpu_table.ratio(rivals.get(name), ms)
                       for name in (gpu_table.FLASH, gpu_table.CUDNN, gpu_table.FLEX))])
    return (markdown(["tokens", "heads", "lists", "density", "seer", "kept TFLOP/s", "against FlashAttention-2",
                      "against cuDNN", "against FlexAttention"], rows) + "\n\n" +
            gpu_source(record, "block_sparse_attn"))


def gpu_map():
    """Dense attention with the pooled map of each query head beside dense attention without one."""
    record = load("pooled_attn", GPU)
    rows = []
    for own in record["rows"]:
        if own["implementation"] != "seer" or own["status"] != "ok" or own["map_heads"] != "q":
            continue
        rivals = {r["implementation"]: r["median_ms"] for r in record["rows"]
                  if r["status"] == "ok" and gpu_record.group_of(r) == gpu_record.group_of(own)}
        ms = own["median_ms"]
        rows.append([gpu_table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", own["head_dim"], f"{ms:.2f} ms",
                     f"{own['tflops']:.0f}",
                     *(gpu_table.ratio(rivals.get(name), ms) for name in (gpu_table.FLASH, gpu_table.CUDNN))])
    return (markdown(["tokens", "heads", "D", "seer, with map", "TFLOP/s", "against FlashAttention-2",
                      "against cuDNN"], rows) + "\n\n" + gpu_source(record, "pooled_attn"))


TABLES = {"quality": quality, "speed": speed, "others": others, "gpu": gpu, "gpu_map": gpu_map}


def main():
    readme = ROOT / "README.md"
    text = readme.read_text()
    made = re.sub(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
                  lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text, flags=re.S)
    if "--check" in sys.argv:
        sys.exit("README.md differs from results/: run tools/readme_tables.py" if made != text else 0)
    readme.write_text(made)


if __name__ == "__main__":
    main()
