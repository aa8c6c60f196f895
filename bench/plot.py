#!/usr/bin/env python3
"""Pictures of results/<chip>/: all of results/nvidia-h200, or of the files named.

    python bench/plot.py [FILE...] [--out FOLDER] [--lists gate] [--heads-kv 8] [--head-dim 128]

block_sparse_attn.json -> docs/gpu_prefill.png: speed-up over the fastest dense rival, and kept TFLOP/s
prefill.json           -> docs/gpu_first_token.png: time to the first token, and where it goes
yarn_..._runs.json     -> docs/yarn_..._runs.png: losses against tokens, density by layer (training_runs.py)
gate_settings_....json -> docs/gate_settings_....png: quality by tokens of distillation (gate_settings.py)
methods_facts_....json -> docs/methods_....png: facts, copies and perplexity against density, with the files beside it (methods.py)
"""
import argparse
import pathlib
import sys

import first_token
import gate_settings
import methods
import record
import table
import training_runs

ROOT = pathlib.Path(__file__).resolve().parent.parent
LISTS = {"gate": "gate-like lists", "random": "random lists"}
COLOURS = ("#0b5394", "#38761d", "#b45f06", "#741b47", "#134f5c", "#7f6000", "#444444", "#990000")


def lines(data, lists, heads_kv, head_dim, dtype):
    """{tokens: [(density, speed-up, seer's TFLOP/s, that of the fastest block-sparse rival, or None)]}, by length,
    densities ascending; lengths that have sparse lists of this kind."""
    out = {}
    for own, rivals in table.compared(data["rows"]):
        if (own["heads_kv"], own["head_dim"], own["dtype"], own["list_heads"]) != (heads_kv, head_dim, dtype,
                                                                                  own["heads_q"]):
            continue
        dense = table.fastest_dense(rivals)
        sparse = min((rivals[name] for name in table.SPARSE if rivals.get(name)), default=None)
        # At density 1 all kinds of lists are the same.
        if dense and (own["lists"] == lists or own["wanted_density"] >= 1):
            label = table.tokens(own) + ("" if rivals.get(table.CUDNN) else " (no cuDNN)")
            out.setdefault(label, []).append(
                (own["density"], dense / own["median_ms"], own["kept_tflops"],
                 sparse and own["kept_tflops"] * own["median_ms"] / sparse))
    return {length: sorted(points) for length, points in out.items() if min(points)[0] < 1}


def draw(found, title, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    most = max(point[1] for points in found.values() for point in points)
    left.plot([d / 1000 for d in range(int(1000 / most * 0.9), 1001)],
              [1000 / d for d in range(int(1000 / most * 0.9), 1001)], color="#bbbbbb", linestyle=":",
              label="1 / density")
    for (length, points), colour in zip(found.items(), COLOURS):
        density, speedup, own, sparse = zip(*points)
        left.plot(density, speedup, "o-", color=colour, markersize=4, label=length)
        right.plot(density, own, "o-", color=colour, markersize=4, label=length)
        others = [(d, f) for d, f in zip(density, sparse) if f]
        if others:
            right.plot(*zip(*others), "x--", color=colour, markersize=7, alpha=0.6)
    right.plot([], [], "x--", color="#777777", markersize=7, label="fastest block-sparse rival, same lists")
    left.axhline(1, color="#cc0000", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="density (listed / visible blocks)",
             ylabel="times faster than the fastest dense rival")
    left.set_title(title, fontsize=11)
    right.set(xscale="log", xlabel="density (listed / visible blocks)", ylabel="kept TFLOP/s")
    right.set_title("rate over the listed blocks", fontsize=11)
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xticks([.02, .05, .1, .2, .5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=9)
    ticks = [t for t in (.2, .5, 1, 2, 5, 10, 20, 50) if t <= most * 1.5]
    left.set_yticks(ticks, [f"{t:g}x" for t in ticks])
    left.set_ylim(bottom=.5)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def plot_attention(file, data, args, path):
    found = lines(data, args.lists, args.heads_kv, args.head_dim, args.dtype)
    if not found:
        raise ValueError("no row of seer beside a dense rival has these lists, heads, D and dtype")
    draw(found, f"{data['chip']}: {LISTS[args.lists]}, 32/{args.heads_kv} heads, D {args.head_dim}, {args.dtype}", path)


def plot_first_token(file, data, args, path):
    if not first_token.groups(data["rows"]):
        raise ValueError("no row of a model's prompt on a GPU")
    first_token.draw(data, path)


# By the record's "operation": the picture's name, none where it is that of the file, and what draws it.
PICTURES = {"block_sparse_attn": ("gpu_prefill.png", plot_attention),
            "prefill": ("gpu_first_token.png", plot_first_token),
            training_runs.OPERATION: (None, lambda file, data, args, path: training_runs.draw(data, path)),
            gate_settings.OPERATION: (None, lambda file, data, args, path: gate_settings.draw(data, path)),
            "eval facts": (None, lambda file, data, args, path: methods.draw(file, path))}
FORMS = ("*_runs.json", "gate_settings_*.json", "methods_facts_*.json")
CHIP = ROOT / "results" / "nvidia-h200"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("files", type=pathlib.Path, nargs="*",
                   default=[CHIP / f"{operation}.json" for operation, (name, _) in PICTURES.items() if name] +
                   [file for form in FORMS for file in sorted(CHIP.glob(form)) if not file.stem.endswith("_forced")])
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "docs", help="folder of pictures (default docs)")
    p.add_argument("--lists", default="gate", choices=LISTS)
    p.add_argument("--heads-kv", type=int, default=8)
    p.add_argument("--head-dim", type=int, default=128)
    p.add_argument("--dtype", default="bf16")
    args = p.parse_args()
    for file in args.files:
        try:
            data = record.read(file)
            if data["operation"] not in PICTURES:
                raise ValueError(f"no picture of {data['operation']}; there are {', '.join(PICTURES)}")
            name, plot = PICTURES[data["operation"]]
            name = name or f"{file.stem.replace('methods_facts_', 'methods_')}.png"
            args.out.mkdir(parents=True, exist_ok=True)
            plot(file, data, args, args.out / name)
        except OSError as error:
            sys.exit(f"{error.filename}: {error.strerror}")
        except ValueError as error:
            sys.exit(f"{file}: {error}")
        print(f"written: {args.out / name}")


if __name__ == "__main__":
    main()
