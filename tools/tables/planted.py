"""Tables of planted facts and pasted passages, and of what lookup heads choose by."""
from . import results
from .quality import LABELS, WITH_LOOKUPS, labels_of
from .results import CPU, CPU_QUALITY, GPU, load, markdown, source

NORMALISERS = {"none": "none", "largest": "its largest product", "blocks": "**sum over blocks**", "blocks + means": "that and blocks' means", "tokens": "sum over all keys"}

MODELS = {"embedded": "embedded model, 7.6 M", "smollm2": "SmolLM2-135M"}
LONG = {f"{model}_{run}": f"{name}, {label}" for model, name in MODELS.items()
        for run, label in (("yarn", "dense YaRN"), ("joint50", "YaRN with SeerAttention at 50%"), ("joint90", "YaRN with SeerAttention at 90%"))}


def chip_of(model):
    """The chip that has both files of the model, a GPU first; None: no chip has."""
    return next((chip for chip in (GPU, CPU_QUALITY) if all((results.FOLDER / chip / f"{what}_{model}.json").exists() for what in ("facts", "copies"))), None)


def figure(row, name):
    """A score with its standard error, without leading zeros."""
    value, error = (f"{row[key]:.2f}".removeprefix("0") if row[key] is not None else "-" for key in (name, f"{name}_error"))
    return f"{value} ± {error}"


def planted(names=MODELS):
    """A line for each model and method; at each sparsity what it finds of facts and copies."""
    chips = {model: chip_of(model) for model in names}
    if not any(chips.values()):
        load("facts_embedded", GPU)  # says what is missing
    lines, sources = [], []
    for model, chip in chips.items():
        if chip is None:
            continue
        facts, copies = load(f"facts_{model}", chip), load(f"copies_{model}", chip)
        methods = list(dict.fromkeys(row["method"] for row in facts["rows"]))
        labels = labels_of(methods)
        for method in methods:
            of = [[row for row in made["rows"] if row["method"] == method] for made in (facts, copies)]
            density = " / ".join(f"{row['density']:.2f}".lstrip("0") for row in of[0]) if method != "dense" else "1"
            cells = [" / ".join(figure(row, name) for row in rows) for rows, name in
                     ((of[0], "top1"), (of[0], "exact"), (of[1], "top1"), (of[1], "loss"))]
            lines.append([names[model], labels.get(method, method), density, *cells])
        first = facts["rows"][0]
        asked = f"{names[model]}: {first['questions']} questions in {first['windows']} windows, {copies['rows'][0]['questions']} passages."
        sources.append(f"{asked} {source(facts, f'facts_{model}', chip)}; {source(copies, f'copies_{model}', chip)}")
    header = ["", "blocks chosen by", "density", "facts, tokens right", "whole answers", "copies, tokens right", "loss"]
    return markdown(header, lines) + "\n\n" + "\n\n".join(sources)


def right(cells):
    """Tokens that are right in all of these cells together; "-": there is none."""
    count = sum(cell["questions"] for cell in cells)
    return f"{sum(cell['questions'] * cell['top1'] for cell in cells) / count:.2f}".removeprefix("0") if count else "-"


def by_place(made, columns):
    """A line for each model and method, dense and at the highest sparsity: tokens that are right at each place.
    made: {label: {what: record}}; columns: {heading: (what, whether a row's cell is there)}."""
    lines, most = [], 0
    for label, of in made.items():
        rows = [row for record in of.values() for row in record["rows"]]
        most = max(row["sparsity"] for row in rows)
        labels = labels_of({row["method"] for row in rows})
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = ([cell for row in of[what]["rows"] if row["method"] == method and row["sparsity"] in (0, most) for cell in row["cells"] if is_there(row, cell)]
                     for what, is_there in columns.values())
            lines.append([label, labels.get(method, method), *map(right, cells)])
    return markdown([f"{most:.0%} sparse", "blocks chosen by", *columns], lines)


def planted_by_distance(models):
    """Facts and copies by how far away they stand."""
    made = {LONG[model]: {what: load(f"{what}_{model}", chip_of(model)) for what in ("facts", "copies")} for model in models}
    places = sorted({(what, *cell["distance"]) for of in made.values() for what, record in of.items() for row in record["rows"] for cell in row["cells"]}, key=lambda place: (place[0] != "facts", place))
    return by_place(made, {f"{what}, {low // 1024}k to {high // 1024}k away": (what, lambda row, cell, at=(low, high): (*cell["distance"],) == at) for what, low, high in places})


def needle_long():
    """A needle by length and depth in the text, in thirds; nothing where it was not measured."""
    names = {label: f"needle_{model}" for model, label in LONG.items() if (results.FOLDER / GPU / f"needle_{model}.json").exists()}
    if not names:
        return ""
    made = {label: {"needle": load(name, GPU)} for label, name in names.items()}
    lengths = sorted({row["length"] for of in made.values() for row in of["needle"]["rows"]})
    columns = {f"{length // 1024}k tokens, {low} to {high} % deep": ("needle", lambda row, cell, at=(length, low, high): row["length"] == at[0] and at[1] <= cell["depth"] <= at[2])
               for length in lengths for low, high in ((0, 33), (34, 66), (67, 100))}
    return "\n\n".join(["A needle in a haystack, digits right:", by_place(made, columns), *(source(made[label]["needle"], name, GPU) for label, name in names.items())])


NEEDLES = ("needle_smollm2", "methods_needle_smollm2")  # gates by length, every method at one


def needle():
    """A needle by tokens of the text and depth, dense and at the highest sparsity: of each length the methods that find most first."""
    records = {name: load(name, GPU) for name in NEEDLES}
    most = max(row["sparsity"] for made in records.values() for row in made["rows"])
    of = {(row["length"], row["method"]): row for made in records.values() for row in made["rows"] if row["sparsity"] in (0, most)}
    depths = sorted({cell["depth"] for row in of.values() for cell in row["cells"]})
    labels = {**LABELS, "seer": WITH_LOOKUPS}
    lines = [[f"{length // 1024}k", labels.get(method, method), "1" if method == "dense" else f"{row['density']:.2f}".removeprefix("0"), figure(row, "top1"),
              *(right([cell for cell in row["cells"] if cell["depth"] == depth]) for depth in depths)]
             for (length, method), row in sorted(of.items(), key=lambda one: (one[0][0], one[0][1] != "dense", -one[1]["top1"]))]
    header = [f"tokens, {most:.0%} sparse", "blocks chosen by", "density", "digits right", *(f"{depth:g} % deep" for depth in depths)]
    asked = sorted({row["questions"] for row in of.values()})
    below = f"{MODELS['smollm2']}; {' or '.join(map(str, asked))} needles of each length. "
    return markdown(header, lines) + f"\n\n{below}" + "; ".join(source(made, name, GPU) for name, made in records.items())


def planted_long():
    """The same of models that read a longer context by YaRN, all in all and by distance; nothing where it was not measured."""
    measured = list(filter(chip_of, LONG))
    if not measured:
        return ""
    text = "Facts and copies in windows of 32,768 tokens, of the models in the tables of YaRN:"
    return "\n\n".join(filter(None, [text, planted(LONG), "By distance, tokens right:", planted_by_distance(measured), needle_long()]))


def lookup_scores():
    """What lists of lookup heads' scores keep of what the true map's keep: by rank and type of numbers, and by normaliser."""
    made = load("lookup_scores", CPU)
    of = {(row["rank"], row["numbers"], row["normaliser"]): f"{row['map']:.3f} / {row['peaks']:.3f}" for row in made["rows"]}
    lines = [[str(rank), numbers, *(of[rank, numbers, name] for name in NORMALISERS)] for rank, numbers in dict.fromkeys(key[:2] for key in of)]
    return markdown(["rank", "products of", *NORMALISERS.values()], lines) + "\n\n" + source(made, "lookup_scores", CPU)


SHARED_OUT = {"dense": "all", "even": "**equal for all heads**", "by need": "more of a head, the more it loses by its gate", "groups": "equal, one list for a group's heads",
              "lookup groups": "equal, one list for a group's heads where some are lookup heads, which choose"}


def lookup_lists():
    """A number of blocks shared out among heads in other ways, and lists that heads share."""
    made = load("lookup_lists", CPU)
    lines = [[SHARED_OUT.get(row["variant"], f"{row['variant'].removeprefix('lookups x ')} times as many for lookup heads"), f"{row['density']:.3f}",
              figure(row, "digits"), figure(row, "copies"), "0" if row["variant"] == "dense" else f"+{row['above_dense']:.1f} ± {row['above_dense_error']:.1f}"]
             for row in made["rows"]]
    header = ["a row's blocks", "density", "facts, digits right", "copies, tokens right", "perplexity, % above dense"]
    return markdown(header, lines) + "\n\n" + source(made, "lookup_lists", CPU)
