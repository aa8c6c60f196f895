"""Tables of gates that were trained or used in different ways (bench/gate_settings.py)."""
from . import results
from .methods import MODEL, above, share
from .quality import LABELS, WITH_LOOKUPS
from .results import CPU_QUALITY, GPU, load, markdown, source

NAME, ABLATIONS = f"gate_settings_{MODEL}", f"gate_ablations_{MODEL}"
# Settings of training, what the page calls them, and those that all others have.
TRAINED = {"default": "**all as by default**", "pooling": "`--gate-type {}`", "block": "`--block {:g}`", "loss": "`--loss {}`", "dim": "`--gate-dim {:g}`", "rank": "lookup heads of rank {:g}"}
WHAT = {"facts": "facts, digits right", "copies": "copies, tokens right", "books": "books, % above dense", "proofs": "proofs, % above dense"}


def scores(row, with_density=False):
    """A row's cells; with its density where results have one of their own."""
    if row["method"] == "dense":
        return [share(row[what]["score"], row[what]["error"]) if what in ("facts", "copies") else "0" for what in WHAT]
    shown = [(share if what in ("facts", "copies") else above)(row[what]["score"], row[what]["error"]) for what in WHAT]
    return [f"{cell} at {row[what]['density']:.2f}".replace("at 0.", "at .") for cell, what in zip(shown, WHAT)] if with_density else shown


def of_setting(setting):
    made = load(NAME, GPU)
    return made, [row for row in made["rows"] if row["setting"] == setting]


def gates_by_tokens():
    """Quality at the highest sparsity by tokens of distillation."""
    made, rows = of_setting("tokens")
    most = max(row["sparsity"] for row in rows)
    lines = [[f"{row['value'] / 1e6:.2g} M", {"seer": WITH_LOOKUPS, "gate": LABELS["gate"]}[row["method"]], *scores(row)]
             for row in sorted(rows, key=lambda row: (row["value"], row["method"])) if row["sparsity"] == most]
    lines += [["", "dense", *scores(row)] for row in rows if row["method"] == "dense"]
    return markdown([f"tokens, {most:.0%} sparse", "", *WHAT.values()], lines) + "\n\n" + source(made, NAME, GPU)


def selection_rules():
    """Rules of choosing by the same scores, at the densities that they come to, by tokens that the gates saw."""
    made, rows = of_setting("rules")
    strength = lambda row: f"{row['strength']:g}" if row["sparsity"] is None else f"{row['sparsity']:.0%} sparse"
    lines = [[f"{row['value'] / 1e6:.2g} M", f"`{row['rule']}`, {strength(row)}", *scores(row, True)] for row in rows if row["method"] == "seer"]
    return markdown(["tokens", "rule", *(f"{what} at density" for what in WHAT.values())], lines) + "\n\n" + source(made, NAME, GPU)


def lookup_shares():
    """Quality by how many of the heads are lookup heads."""
    made, rows = of_setting("lookups")
    lines = [["none" if row["method"] == "gate" else f"{row['value']:.0%}", f"{row['sparsity']:.0%}", *scores(row)]
             for row in sorted(rows, key=lambda row: (row["sparsity"], row["method"] != "gate", row["value"])) if row["method"] != "dense"]
    return markdown(["lookup heads", "sparsity", *WHAT.values()], lines) + "\n\n" + source(made, NAME, GPU)


def changed_alone(name, chip, is_shown, columns=WHAT):
    """A line for each setting of training."""
    made, order = load(name, chip), list(TRAINED)
    rows = sorted(filter(is_shown, made["rows"]), key=lambda row: (row["sparsity"], order.index(row["setting"]), isinstance(row["value"], str), row["value"]))
    lines = [[TRAINED[row["setting"]].format(row["value"]), f"{row['sparsity']:.0%}", f"{row['facts']['density']:.2f}".removeprefix("0"), *scores(row)] for row in rows]
    return markdown(["trained with", "sparsity", "density", *columns.values()], lines) + "\n\n" + source(made, name, chip)


def ablations():
    """Quality by settings of training, each changed alone, of SmolLM2 on a GPU."""
    return changed_alone(ABLATIONS, GPU, lambda row: row["method"] == "seer")


def ablations_embedded():
    """The same of the embedded model on a CPU, without lookup heads, beside dense attention."""
    return changed_alone("gate_ablations_embedded", CPU_QUALITY, lambda row: row["method"] == "seer", {**WHAT, "facts": "facts, tokens right"})  # its facts are words


def gate_rope():
    """Gates with RoPE on their vectors and without it, by length; on a GPU once that was measured."""
    chip = next((chip for chip in (GPU, CPU_QUALITY) if (results.FOLDER / chip / "gate_rope.json").exists()), GPU)
    made = load("gate_rope", chip)
    lengths = sorted({row["length"] for row in made["rows"]})
    lines = [["dense", *(f"{next(row for row in made['rows'] if (row['method'], row['length']) == ('dense', length))['perplexity']:.2f}" for length in lengths)]]
    for name in dict.fromkeys(row["gates"] for row in made["rows"] if "gates" in row):
        of = {row["length"]: row for row in made["rows"] if row.get("gates") == name}
        lines.append([f"gates {name}", *(f"{above(of[length]['vs_dense'], of[length]['vs_dense_error'])} % at {of[length]['density']:.2f}".replace("at 0.", "at .") for length in lengths)])
    gates = next(row for row in made["rows"] if "gates" in row)
    below = f"{made['settings']['model']}, {gates['sparsity']:.0%} sparse, {gates['documents']} documents; gates saw {gates['trained_tokens'] / 1e6:.2g} M tokens, {gates['trained_length'] // 1024}k at a time."
    return markdown(["perplexity, above dense at density", *(f"{length // 1024}k" for length in lengths)], lines) + f"\n\n{below} " + source(made, "gate_rope", chip)
