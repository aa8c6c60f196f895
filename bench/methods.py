"""The picture of every method of choosing blocks against density, of results/<chip>/methods_*.json (bench/plot.py)."""
import record

# By panel: the file, the score with its error beside it.
PANELS = {"facts: digits right": ("methods_facts_{}", "top1"), "copies: tokens right": ("methods_copies_{}", "top1"),
          "books: perplexity": ("methods_ppl_{}_books", "vs_dense"), "proofs: perplexity": ("methods_ppl_{}_proofs", "vs_dense")}
NEEDLE = {"needle: digits right": ("methods_needle_{}", "top1")}  # where it was measured
ROWS = {"": "blocks by their scores alone", "_forced": "first and most recent block among them"}
LINES = {"seer": ("gates with lookup heads", "#2563eb", "o"), "gate": ("gates without lookup heads", "#0e7490", "D"), "oracle": ("oracle (true map)", "#059669", "o"),
         "duo": ("DuoAttention", "#a21caf", "s"), "xattention": ("XAttention", "#4d7c0f", "^"), "quest": ("Quest", "#be185d", "v"), "pooled": ("means of q and k", "#dc2626", "P"),
         "flexprefill": ("FlexPrefill", "#4338ca", "x"), "minference_vs": ("MInference", "#92400e", "+"), "streaming": ("sink + window", "#d97706", "*"), "random": ("random", "#8b93a1", ".")}


def points(rows, method, field):
    """[(density, score, error)] in per cent, densities ascending; what is above dense attention of perplexity."""
    level = 1 if field == "vs_dense" else 0
    return sorted((100 * row["density"], 100 * (row[field] - level), 100 * row[f"{field}_error"]) for row in rows if row["method"] == method)


def draw(file, path):
    """file: methods_facts_MODEL.json; the others lie beside it, those with forced blocks where they were measured."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    if not file.stem.startswith("methods_facts_"):
        raise ValueError("no picture of facts alone: want methods_facts_MODEL.json, methods_copies_MODEL.json and perplexities beside it")
    model = file.stem.removeprefix("methods_facts_")
    beside = lambda name, suffix: file.with_name(f"{name.format(model)}{suffix}.json")
    suffixes = [suffix for suffix in ROWS if beside("methods_facts_{}", suffix).exists()]
    # Needles only where they were measured; perplexities, facts and copies everywhere.
    panels = {**PANELS, **{title: of for title, of in NEEDLE.items() if any(beside(of[0], suffix).exists() for suffix in suffixes)}}
    found = {suffix: [record.read(file)["rows"] if title in PANELS or file.exists() else [] for title, file in ((title, beside(name, suffix)) for title, (name, _) in panels.items())]
             for suffix in suffixes}
    figure, axes = plt.subplots(len(found), len(panels), figsize=(3.5 * len(panels), 3.6 * len(found) + .5), layout="constrained", squeeze=False)
    for line, (suffix, records) in zip(axes, found.items()):
        for axis, rows, (title, (_, field)) in zip(line, records, panels.items()):
            if not rows:
                axis.set_visible(False)
                continue
            for method, (label, colour, marker) in LINES.items():
                if of := points(rows, method, field):
                    is_ring = method == "oracle"
                    axis.errorbar(*zip(*[(x, y) for x, y, _ in of]), [error for *_, error in of], marker=marker, color=colour, label=label, capsize=0, markersize=9 if is_ring else 5,
                                  markerfacecolor="none" if is_ring else colour, linewidth=2.4 if method == "seer" else 1.2, zorder=3 if method in ("seer", "oracle") else 2)
            axis.axhline(points(rows, "dense", field)[0][1], color="#222222", linestyle="--", linewidth=1, label="dense attention")
            if field == "vs_dense":
                axis.set_yscale("symlog", linthresh=5)
                axis.set_yticks([0, 2, 5, 10, 20, 50, 100, 200, 500], ["0", "2", "5", "10", "20", "50", "100", "200", "500"])
                axis.set_ylim(bottom=-2)
            else:
                axis.set_ylim(0, 100)
            axis.set(xscale="log", xlim=(7, 70), title=f"{title}\n({ROWS[suffix]})", xlabel="% of the blocks computed", ylabel="% above dense attention" if field == "vs_dense" else "%")
            axis.title.set_fontsize(10)
            axis.set_xticks([10, 20, 30, 50], ["10", "20", "30", "50"])
            axis.minorticks_off()
            axis.grid(alpha=0.25)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
