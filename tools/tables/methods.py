"""Every method of choosing blocks on one model: facts, copies and perplexity at equal numbers of blocks."""
from . import results
from .planted import MODELS, WITH_LOOKUPS
from .quality import LABELS
from .results import GPU, load, markdown, source

MODEL = "smollm2"
# By column: the file, and the field that has its standard error beside it.
MEASURED = {"facts, digits right": ("facts_{}", "top1"), "copies, tokens right": ("copies_{}", "top1"),
            "books, % above dense": ("ppl_{}_books", "vs_dense"), "proofs, % above dense": ("ppl_{}_proofs", "vs_dense")}
NEEDLE = {"needle, digits right": ("needle_{}", "top1")}  # where it was measured
OWN = ("seer", "gate")


def share(value, error):
    return f"{value:.2f} ± {error:.2f}".replace("0.", ".")


def above(ratio, error):
    """Per cent above dense attention, to the digit of the error."""
    value, error = 100 * (ratio - 1), 100 * error
    digits = 2 if error < .095 else 1 if error < .95 else 0
    return f"{value:+.{digits}f} ± {error:.{digits}f}".replace("± 0.", "± .")


def rank(field, own, rivals):
    """Of one value among those of rivals, and how far it is before (+) or behind (-) the best of them."""
    lower = field == "vs_dense"
    ahead = sum((other < own) if lower else (other > own) for other in rivals)
    margin = 100 * (min(rivals) - own) if lower else own - max(rivals)
    return f"{ahead + 1} ({margin:+.1f})" if lower else f"{ahead + 1} ({margin:+.2f})".replace("0.", ".")


def compared(suffix=""):
    """A line a method, most facts at the highest sparsity first; last the ranks of gates among the methods that need neither gates nor the true map."""
    name_of = lambda file: f"methods_{file.format(MODEL)}{suffix}"
    measured = {**MEASURED, **{column: of for column, of in NEEDLE.items() if (results.FOLDER / GPU / f"{name_of(of[0])}.json").exists()}}
    names = {column: name_of(file) for column, (file, _) in measured.items()}
    records = {column: load(name, GPU) for column, name in names.items()}
    of = {column: {(row["method"], row["sparsity"]): row for row in made["rows"]} for column, made in records.items()}
    facts, copies, *texts = MEASURED
    needle = [column for column in measured if column in NEEDLE]
    sparsities = sorted({s for method, s in of[facts] if method != "dense"})
    methods = sorted({method for method, _ in of[facts]} - {"dense"}, key=lambda method: -of[facts][method, sparsities[-1]]["top1"])
    rivals = [method for method in methods if method not in (*OWN, "oracle")]
    labels = {**LABELS, "seer": WITH_LOOKUPS}
    dense = [of[column]["dense", 0.] for column in measured]
    lines = [["dense", "1", *(share(row["top1"], row["top1_error"]) if "top1" in row else f"perplexity {row['perplexity']:.2f}" for row in dense)]]
    for method in methods:
        cells = [" / ".join((above if field == "vs_dense" else share)(of[column][method, s][field], of[column][method, s][f"{field}_error"]) for s in sparsities)
                 for column, (_, field) in measured.items()]
        lines.append([labels.get(method, method), " / ".join(f"{of[facts][method, s]['density']:.2f}".lstrip("0") for s in sparsities), *cells])
    for own in [method for method in OWN if method in methods and rivals]:
        cells = [" / ".join(rank(field, of[column][own, s][field], [of[column][other, s][field] for other in rivals]) for s in sparsities)
                 for column, (_, field) in measured.items()]
        lines.append([f"rank of {labels[own].strip('*')}", "", *cells])
    asked = [f"{dense[0]['questions']} questions", f"{dense[1]['questions']} passages",
             *(f"{row['documents']} documents of {column.split(',')[0]}" for row, column in zip(dense[2:], texts)), *(f"{row['questions']} needles" for row in dense[len(MEASURED):])]
    below = (f"{MODELS[MODEL]}, {' / '.join(f'{s:.0%}' for s in sparsities)} sparse; {', '.join(asked)}, {dense[0]['length']:,} tokens each. Ranks: among itself and the "
             f"{len(rivals)} methods without gates and without the true map; in brackets how far before (+) or behind (-) the best of them.")
    sources = [source(records[facts], names[facts], GPU), source(records[copies], names[copies], GPU),
               source(records[texts[0]], names[texts[0]], GPU, *(names[column] for column in texts[1:])),
               *(source(records[column], names[column], GPU) for column in needle)]
    return markdown(["blocks chosen by", "density", *measured], lines) + f"\n\n{below} " + "; ".join(sources)


def methods():
    return compared()


def methods_forced():
    """The same, the first and the most recent block of each row being among those that are computed."""
    return compared("_forced")
