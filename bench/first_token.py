"""Rows of `seer bench prefill`: which bar of which group each one is, and their picture."""
import math

DENSE = {"dense, FlashAttention-2": "FA2", "dense, cuDNN": "cuDNN"}
SPARSE = ("50%", "70%", "90%")
BARS = (*DENSE.values(), *SPARSE)
# From the ground up: what stays the same first.
PARTS = {"products_ms": ("matrix products", "#9aa5b1"), "rest_ms": ("rest", "#d3d9de"),
         "attention_ms": ("attention", "#0b5394"), "gate_ms": ("gate", "#e69138"), "select_ms": ("selection", "#990000")}


def bar(row):
    """A bar's name: a dense attention, or the sparsity nearest to what was measured."""
    if row["implementation"] in DENSE:
        return DENSE[row["implementation"]]
    return f"{round(1 - row['density'], 1):.0%}" if row["implementation"] == "seer" else None


def off(row):
    """How far its density is from its bar's."""
    return abs(row["density"] - round(row["density"], 1))


def groups(rows):
    """{(model, tokens): {bar: row}}, models in the order of the rows, lengths ascending."""
    order, out = list(dict.fromkeys(r["model"] for r in rows)), {}
    for row in sorted(rows, key=lambda r: (order.index(r["model"]), r["len_q"])):
        name = bar(row)
        if name not in BARS:
            continue
        bars = out.setdefault((row["model"], row["len_q"]), {})
        if name not in bars or off(row) < off(bars[name]):
            bars[name] = row
    return out


def heights(bars):
    """{bar: [(part, bottom, height)]} of a group, the faster dense attention's whole being 1 (without one: the slowest
    bar's)."""
    dense = [row["median_ms"] for name, row in bars.items() if name not in SPARSE]
    unit = min(dense, default=max(row["median_ms"] for row in bars.values()))
    out = {}
    for name, row in bars.items():
        bottom, out[name] = 0, []
        for part in PARTS:
            height = row[part] / unit
            out[name].append((part, bottom, height))
            bottom += height
    return out


def seconds(ms):
    return f"{ms / 1e3:.1f} s" if ms >= 1e4 else f"{ms / 1e3:.2f} s"


def draw(data, path):
    """A panel a model; in each, a group of bars a length."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    found = groups(data["rows"])
    models = list(dict.fromkeys(model for model, _ in found))
    most = max(len([1 for model, _ in found if model == of]) for of in models)
    figure, axes = plt.subplots(len(models), 1, figsize=(1.2 + 2.9 * most, 1.1 + 2.5 * len(models)), squeeze=False,
                                layout="constrained")
    for axis, model in zip(axes[:, 0], models):
        ticks, names, top = [], [], 1
        for group, tokens in enumerate(tokens for of, tokens in found if of == model):
            bars = found[model, tokens]
            left = group * (len(BARS) + 1)
            for place, name in enumerate(BARS):
                if name not in bars:
                    continue
                ticks.append(left + place)
                names.append(name)
                for part, bottom, height in heights(bars)[name]:
                    axis.bar(left + place, height, 0.8, bottom, color=PARTS[part][1])
                top = max(top, bottom + height)
                axis.text(left + place, bottom + height, seconds(bars[name]["median_ms"]), ha="center", va="bottom",
                          fontsize=8)
            axis.text(left + (len(BARS) - 1) / 2, -0.13, f"{tokens // 1024}k tokens", ha="center", va="top",
                      fontsize=9.5, transform=axis.get_xaxis_transform())
        axis.set_xticks(ticks, names, fontsize=8)
        axis.tick_params(axis="x", length=0)
        axis.set_ylim(0, math.ceil(top * 5 + 0.5) / 5)
        axis.set_xlim(-0.8, most * (len(BARS) + 1) - 1.2)
        axis.set_title(model, fontsize=10.5, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supylabel("time (faster dense attention = 1)", fontsize=9.5)
    figure.suptitle(f"{data['chip']}: time to the first token, dense attention and sparse at 50 to 90%", fontsize=11)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for _, colour in PARTS.values()]
    figure.legend(handles, [label for label, _ in PARTS.values()], loc="outside lower center", ncols=len(PARTS),
                  frameon=False, fontsize=9)
    figure.savefig(path, dpi=130, metadata={"Software": None})
