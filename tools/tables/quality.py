"""Tables of perplexity."""
from .results import CPU_QUALITY, GPU, load, markdown, source

SPARSITIES = (0.5, 0.7, 0.9)
TEXTS = ("books", "proofs")
LABELS = {"oracle": "oracle (true map)", "seer": "**learned gates**", "gate": "gates without lookup heads", "streaming": "sink + sliding window",
          "duo": "kinds of heads (as DuoAttention)", "xattention": "antidiagonals (XAttention)", "flexprefill": "FlexPrefill",
          "minference_vs": "verticals and slashes (MInference)", "pooled": "means of q and k", "quest": "bounds of keys (Quest)",
          "untrained": "untrained gates", "random": "random + diagonal"}

WITH_LOOKUPS = "**gates with lookup heads**"


def perplexity(records, methods, sparsities=SPARSITIES):
    """A line a method: at each sparsity its density and, on each text, its perplexity and what that is of dense
    attention's.

    records: {text: a record}; methods: [(label, method)].
    """
    dense = {text: next(r["perplexity"] for r in records[text]["rows"] if r["method"] == "dense") for text in TEXTS}
    lines = [["dense", "1", *(cell for text in TEXTS for cell in (f"{dense[text]:.2f}", *[""] * (len(sparsities) - 1)))]]
    for label, method in methods:
        found = {(text, r["sparsity"]): r for text in TEXTS for r in records[text]["rows"] if r["method"] == method}
        density = " / ".join(f"{found[TEXTS[0], s]['density']:.2f}".lstrip("0") for s in sparsities)
        cells = [f"{found[text, s]['perplexity']:.2f} (x{found[text, s]['perplexity'] / dense[text]:.3f})"
                 for text in TEXTS for s in sparsities]
        lines.append([label, density, *cells])
    header = ["blocks chosen by", "density", *(f"{text} {s:.0%}" for text in TEXTS for s in sparsities)]
    return markdown(header, lines)


def labels_of(methods):
    """What pages call these methods: gates with lookup heads by that name, where gates without stand beside."""
    return {**LABELS, **({"seer": WITH_LOOKUPS} if "gate" in methods else {})}


def quality():
    """The embedded model with its gates, on a CPU."""
    records = {text: load(f"ppl_{text}", CPU_QUALITY) for text in TEXTS}
    measured = {row["method"] for row in records["books"]["rows"]}
    return (perplexity(records, [(label, method) for method, label in labels_of(measured).items() if method in measured]) + "\n\n" +
            source(records["books"], "ppl_books", CPU_QUALITY, "ppl_proofs"))


def run_gpu():
    """What `seer run` says of a real model with the gates that ship: perplexities by sparsity."""
    made = load("run_smollm2", GPU)
    of = {(row["method"], row["sparsity"]): row for row in made["rows"]}
    sparsities = sorted({sparsity for _, sparsity in of if sparsity})
    labels = {**LABELS, "seer": WITH_LOOKUPS}
    dense = of["dense", 0.]
    lines = [["dense", "1", f"{dense['perplexity']:.3f}", *[""] * (len(sparsities) - 1)]]
    for method in dict.fromkeys(method for method, _ in of if method != "dense"):
        rows = [of[method, sparsity] for sparsity in sparsities]
        lines.append([labels.get(method, method), " / ".join(f"{row['density']:.2f}".removeprefix("0") for row in rows), *(f"{row['perplexity']:.3f} (x{row['vs_dense']:.3f})" for row in rows)])
    below = f"{dense['documents']} windows of {dense['length']:,} tokens of Python's help, which stands on every machine. "
    return markdown(["blocks chosen by", "density", *(f"{s:.0%} sparse" for s in sparsities)], lines) + f"\n\n{below}" + source(made, "run_smollm2", GPU)
