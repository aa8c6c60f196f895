#!/usr/bin/env python3
"""Curves of runs of `seer finetune` and `seer distill` in one file of results, and their picture (bench/plot.py).

    python bench/training_runs.py RUN... --out FILE [--density FILE] [--points 100]

A row a run: its settings, and against tokens the loss and the gates' loss (each point the mean of the steps since the
one before) and the losses of held-out texts. --density takes from the results of `seer eval ppl` the density by layer
of rows of gates, too. Run it where the runs were made: it notes chip and versions.
"""
import argparse
import json
import math
import pathlib
import sys

import record

OPERATION = "training runs"
COLOURS = ("#0b5394", "#38761d", "#b45f06", "#741b47", "#134f5c", "#7f6000")


def mean(values):
    """Of what was measured: gates have no loss in steps without one."""
    found = [v for v in values if v is not None and math.isfinite(v)]
    return round(sum(found) / len(found), 5) if found else None


def curves(lines, points):
    """Of the lines of a metrics.jsonl: {"tokens": [...], "loss": [...], "gate_loss": [...], "valid": {name: [[tokens,
    loss], ...]}}, with at most that many points."""
    steps = [line for line in lines if "loss" in line and not line.get("skipped")]
    if not steps:
        raise ValueError("no step has a loss")
    size = math.ceil(len(steps) / points)
    parts = [steps[i:i + size] for i in range(0, len(steps), size)]
    made = {"tokens": [part[-1]["tokens"] for part in parts]}
    for name in ("loss", "gate_loss"):
        if any(name in step for step in steps):
            made[name] = [mean(step.get(name) for step in part) for part in parts]
    tokens_at = {step["step"]: step["tokens"] for step in lines if "tokens" in step}
    valid = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith("valid_") and not key.startswith("valid_skipped") and value is not None:
                valid.setdefault(key.removeprefix("valid_"), []).append([tokens_at.get(line["step"], 0), round(value, 5)])
    return {**made, "valid": valid}


def read_run(folder, points):
    run = record.read(folder / "run.json")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"run": folder.resolve().name, "task": run["task"], "settings": run["settings"], "steps": run["loop"]["steps"],
            "seconds": round(max(line.get("seconds", 0) for line in lines), 1), **curves(lines, points)}


def densities(made):
    """Rows of gates, of the results of `seer eval ppl`."""
    keep = ("model", "method", "rule", "strength", "length", "documents", "density", "density_by_layer", "trained_sparsity")
    return [{key: row[key] for key in keep if key in row} for row in made["rows"] if row["method"] in ("seer", "gate")]


def machine():
    """Where this runs: a GPU's name, else the CPU's."""
    import torch
    if torch.cuda.is_available():
        return {"chip": torch.cuda.get_device_name(), "versions": {"torch": torch.__version__, "driver": record.driver()}}
    return {key: record.cpu()[key] for key in ("chip", "versions")}


def name_of(row):
    """A run as the legend has it."""
    if row["task"] == "distill":
        return f"{row['run']}: gates alone"
    selection = row["settings"].get("selection")
    if not selection:
        return row["run"]
    by_share = selection[0] in ("nz_ratio", "head_budget")
    return f"{row['run']}: " + (f"{1 - selection[1]:.0%} sparse" if by_share else f"{selection[0]} {selection[1]:g}")


def draw(data, path):
    """Loss, the gates' loss, and, where it was measured, density by layer."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator
    runs = [row for row in data["rows"] if "run" in row]
    layers = [row for row in data["rows"] if "density_by_layer" in row]
    if not runs:
        raise ValueError("no row is of a run")
    figure, axes = plt.subplots(1, 2 + bool(layers), figsize=(5 * (2 + bool(layers)), 4.2), layout="constrained")
    markers = dict(zip(sorted({text for row in runs if row["task"] != "distill" for text in row["valid"]}), "osD^v"))
    for row, colour, width in zip(runs, COLOURS, (3, 2, 1, 1, 1, 1)):  # curves that coincide are all seen
        tokens = [t / 1e6 for t in row["tokens"]]
        gates = row["loss"] if row["task"] == "distill" else row.get("gate_loss")
        if row["task"] != "distill":
            axes[0].plot(tokens, row["loss"], color=colour, linewidth=width, label=name_of(row))
            for text, points in row["valid"].items():
                at, losses = zip(*points)
                axes[0].plot([t / 1e6 for t in at], losses, markers.get(text, "x"), color=colour, markersize=5,
                             markerfacecolor="none")
        if gates:
            found = [(t, g) for t, g in zip(tokens, gates) if g is not None]
            axes[1].plot(*zip(*found), ".-", color=colour, linewidth=1, markersize=2, label=name_of(row))
    for text, marker in markers.items():
        axes[0].plot([], [], marker, color="#777777", markerfacecolor="none", label=f"held out: {text}")
    axes[0].set(xlabel="million tokens", ylabel="nats per token", title="loss")
    axes[1].set(xlabel="million tokens", ylabel="weighted sum over layers", title="loss of the gates", yscale="log")
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].yaxis.set_minor_locator(NullLocator())
    for row, colour in zip(layers, COLOURS):
        shown = [math.nan if d is None else d for d in row["density_by_layer"]]
        of = row.get("model", "")
        label = of if "trained_sparsity" in row else f"{of}, gates after it".lstrip(", ")
        if any(other["method"] == "gate" and other.get("model", "") == of for other in layers):
            label += {"seer": ", with lookup heads", "gate": ", without"}[row["method"]]
        label += f": {row['density']:.2f} in all"
        axes[2].plot(range(len(shown)), shown, ".-", color=colour, linewidth=1, label=label)
    if layers:
        axes[2].set(xlabel="layer", ylabel="blocks computed", ylim=(0, None),
                    title=f"density by layer, {layers[0]['rule']} {layers[0]['strength']:g}")
    for axis in axes:
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("runs", type=pathlib.Path, nargs="+", help="folders of runs")
    p.add_argument("--out", type=pathlib.Path, required=True, help="file of the results")
    p.add_argument("--density", type=pathlib.Path, help="results of seer eval ppl with density by layer")
    p.add_argument("--points", type=int, default=100, help="of a curve, at most (default 100)")
    args = p.parse_args()
    if args.points < 1:
        p.error("--points: want 1 or more")
    rows, place = [], None
    try:
        for place in args.runs:
            rows.append(read_run(place, args.points))
        if place := args.density:
            rows += densities(record.read(place))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except (ValueError, KeyError) as error:
        sys.exit(f"{place}: no such results: {error}")
    command = ["python", "bench/training_runs.py", *(path.name for path in args.runs)]
    record.write(args.out, {"operation": OPERATION, **machine(), "command": " ".join(command),
                            "date": record.today(), "rows": rows})
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
