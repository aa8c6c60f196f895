#!/usr/bin/env python3
"""Gates that were trained or used in different ways, side by side: results of `seer eval facts`, `copies` and `ppl` in one file.

    python bench/gate_settings.py tokens=524288:evals/g8 tokens=2e6:evals/g30 rules:evals/rules --out FILE

SETTING=VALUE:FOLDER/NAME stands for FOLDER/facts_NAME.json, copies_NAME.json, ppl_NAME_books.json and ppl_NAME_proofs.json; without
=VALUE their rows differ by rule. A VALUE is a number, or a word such as `Qavg_Kavg`. A row for each rule and strength of the methods seer and gate, and one of dense attention: what
`SCORES` names, with standard errors and densities. bench/plot.py draws those by tokens of distillation.
"""
import argparse
import pathlib
import re
import sys

import record

OPERATION = "gate settings"
# By what is measured: the file of it, and the score that is kept.
SCORES = {"facts": ("facts_{}", "top1"), "copies": ("copies_{}", "top1"), "books": ("ppl_{}_books", "vs_dense"), "proofs": ("ppl_{}_proofs", "vs_dense")}
METHODS = ("dense", "gate", "seer")
MACHINE = ("chip", "threads", "avx2_at_most", "bf16_dot_product", "versions")
LINES = {"gate": ("gates alone", "#0b5394", "o"), "seer": ("with lookup heads", "#b45f06", "s")}


def parse(word):
    """SETTING[=VALUE]:FOLDER/NAME as (setting, value (a number, a word or None), folder, name)."""
    found = re.fullmatch(r"(\w+)(?:=([^:]+))?:(.*[^/])", word)
    if not found:
        raise ValueError(f"{word}: want SETTING=VALUE:FOLDER/NAME")
    path, value = pathlib.Path(found[3]), found[2]
    try:
        value = None if value is None else float(value)
    except ValueError:
        pass  # a word
    return found[1], value, path.parent, path.name


def key_of(row):
    return row["method"], row.get("rule"), row.get("strength")


def rows_of(setting, value, made):
    """made: {what: record of an evaluation}, which have the same rows."""
    found = {what: {key_of(row): row for row in of["rows"] if row["method"] in METHODS} for what, of in made.items()}
    rows = []
    for key in found["facts"]:
        if any(key not in of for of in found.values()):
            raise ValueError(f"{setting}: not all four results have {', '.join(str(part) for part in key)}")
        row = {"setting": setting, "value": value, "method": key[0], "rule": key[1], "strength": key[2], "sparsity": found["facts"][key].get("sparsity"),
               "length": found["facts"][key]["length"]}
        for what, (_, field) in SCORES.items():
            of = found[what][key]
            row[what] = {"score": of[field], "error": of[f"{field}_error"], "density": of["density"]}
        rows.append(row)
    return rows


def collect(words):
    rows, kept = [], []
    for word in words:
        setting, value, folder, name = parse(word)
        made = {what: record.read(folder / f"{file.format(name)}.json") for what, (file, _) in SCORES.items()}
        if unfinished := [what for what, of in made.items() if not of.get("complete")]:
            raise ValueError(f"{word}: not complete: {', '.join(unfinished)}")
        kept += made.values()
        has_dense = any(row["setting"] == setting and row["method"] == "dense" for row in rows)
        rows += [{**row, "commands": [record.portable(of["command"]) for of in made.values()]}
                 for row in rows_of(setting, value, made) if not (has_dense and row["method"] == "dense")]
    if len({str([of.get(key) for key in MACHINE]) for of in kept}) > 1:
        raise ValueError("results of different chips or versions do not stand in one file")
    return rows, kept


def draw(data, path):
    """Answers and perplexity against tokens of distillation, of the sparsest rows; dense attention as a level."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    rows = [row for row in data["rows"] if row["setting"] == "tokens"]
    most = max((row["sparsity"] for row in rows if row["method"] != "dense"), default=None)
    if most is None:
        raise ValueError("no row is of gates by tokens of distillation")
    figure, axes = plt.subplots(1, len(SCORES), figsize=(3.4 * len(SCORES), 3.5), layout="constrained")
    titles = {"facts": "facts: digits right", "copies": "copies: tokens right", "books": "books: perplexity", "proofs": "proofs: perplexity"}
    for axis, (what, (_, field)) in zip(axes, SCORES.items()):
        of = lambda row, name: row[what][name] * 100 - (100 if field == "vs_dense" and name == "score" else 0)
        for method, (label, colour, marker) in LINES.items():
            points = sorted((row["value"] / 1e6, of(row, "score"), of(row, "error")) for row in rows if row["method"] == method and row["sparsity"] == most)
            if points:
                x, y, errors = zip(*points)
                axis.errorbar(x, y, errors, marker=marker, color=colour, markersize=5, capsize=2, label=label)
        level = next((of(row, "score") for row in rows if row["method"] == "dense"), None)
        if level is not None:
            axis.axhline(level, color="#222222", linestyle="--", linewidth=1, label="dense attention")
        axis.set(xscale="log", xlabel="million tokens of distillation", ylabel="%" if field == "top1" else "% above dense attention")
        if field == "vs_dense":
            axis.set_yscale("symlog", linthresh=10)
            axis.set_yticks([0, 5, 10, 20, 50, 100, 200, 300], ["0", "5", "10", "20", "50", "100", "200", "300"])
            axis.set_ylim(-2, None)
        else:
            axis.set_ylim(0, 100)
        axis.set_xticks([.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.set_title(titles[what], fontsize=11)
    axes[0].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(0, .6))
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("evals", nargs="+", metavar="SETTING=VALUE:FOLDER/NAME")
    p.add_argument("--out", type=pathlib.Path, required=True, help="file of the results")
    args = p.parse_args()
    try:
        rows, kept = collect(args.evals)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except (ValueError, KeyError) as error:
        sys.exit(f"no such results: {error}")
    command = " ".join(["python", "bench/gate_settings.py", *(re.sub(r":.*/", ":", word) for word in args.evals)])
    machine = {key: kept[0][key] for key in MACHINE if key in kept[0]}
    record.write(args.out, {"operation": OPERATION, **machine, "command": command, "date": max(of["date"] for of in kept), "rows": rows})
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
