"""Tables of long-context fine-tuning: dense, gates distilled after it, both trained together; in the published form, and with all that was measured."""
import math
import re

from . import results
from .results import GPU, load, markdown, source

# Of results/<chip>/yarn_<name>_<text>.json: what the page calls the model. Those that are not there are left out.
MODELS = {"embedded": "embedded model, 7.6 M", "smollm2": "SmolLM2-135M"}
SEED = "_seed2"  # ends the name of the same with gates of another seed
TEXTS = ("books", "proofs")
PUBLISHED = ("gates after YaRN", "YaRN with SeerAttention")  # of results/published.json
METHODS = {"dense": "dense YaRN", "gate": "gates after", "seer": "gates after", "oracle": "oracle", "streaming": "sink + window"}
LOOKUP = "_lookup"  # ends the name of a model whose gates have lookup heads
WITH_LOOKUPS = ", with lookup heads"
# By the name of results: the model, and settings of its runs: learning rate, that of gates, tokens that these had seen. The first of a model is that of all other tables.
RATES = {"embedded": ("embedded", ("8e-4", "5e-4", "33 M")), "embedded_with_gates1.5e-3": ("embedded", ("8e-4", "1.5e-3", "33 M")),
         "smollm2": ("smollm2", ("3e-4", "1.5e-3", "52 M")), "smollm2_with_gates5e-4": ("smollm2", ("3e-4", "5e-4", "20 M")), "smollm2_with_lr1e-4": ("smollm2", ("1e-4", "5e-4", "20 M"))}


def records(models=MODELS):
    """{(model, text): record}. FileNotFoundError: there is none at all."""
    found, missing = {}, None
    for model in models:
        for text in TEXTS:
            try:
                found[model, text] = load(f"yarn_{model}_{text}", GPU)
            except FileNotFoundError as error:
                missing = missing or error
    if not found:
        raise missing
    return found


def gates_alone(rows):
    """The method by which these rows have gates without lookup heads."""
    return "gate" if has_lookups(rows) else "seer"


def has_lookups(rows):
    return any(row["method"] == "gate" for row in rows)


def own_rows(made, method):
    """Of the model that was trained densely, by sparsity, ascending."""
    first = made["rows"][0].get("model")
    return sorted((row for row in made["rows"] if row.get("model") == first and row["method"] == method), key=lambda row: row["sparsity"])


def first_rows(made):
    """The dense row, and those of the same model's gates alone by sparsity, ascending."""
    return own_rows(made, "dense")[0], own_rows(made, gates_alone(made["rows"]))


def series_of(made):
    """{name: rows by sparsity, ascending} of a record: the first model, dense, with its gates and by baselines; the others, dense and with their gates."""
    found = {}
    for method, name in METHODS.items():
        found[name + (WITH_LOOKUPS if method == "seer" and has_lookups(made["rows"]) else "")] = own_rows(made, method)
    for model in sorted({row["model"] for row in made["rows"] if "trained_sparsity" in row}):
        of = sorted((row for row in made["rows"] if row["model"] == model), key=lambda row: row["sparsity"])
        found[f"trained at {of[0]['trained_sparsity']:.0%} ({model.removesuffix(LOOKUP)})" + (WITH_LOOKUPS if model.endswith(LOOKUP) else "")] = of
    return {name: rows for name, rows in found.items() if rows}


def nearest(made, lookups=False):
    """At each sparsity the row of the model that was trained nearest to it, of two the less sparse: the published choice."""
    best = {}
    for row in made["rows"]:
        if "trained_sparsity" not in row or row["method"] != "seer" or row["model"].endswith(LOOKUP) != lookups:
            continue
        off = (round(abs(row["sparsity"] - row["trained_sparsity"]), 6), row["trained_sparsity"])
        if row["sparsity"] not in best or off < best[row["sparsity"]][0]:
            best[row["sparsity"]] = off, row
    return [row for _, (_, row) in sorted(best.items())]


def excess(row, gates):
    """As `seer eval ppl` defines it: its excess over dense attention as a share of that of `gates`, of the same kind, at the same sparsity;
    None: those have none."""
    of = next((one["vs_dense"] - 1 for one in gates if one["sparsity"] == row["sparsity"]), 0)
    return (row["vs_dense"] - 1) / of if of > 0 else None


def joined(cells):
    return " / ".join(cells)


def short(value):
    return f"{value:.2f}".replace("0.", ".", 1)


def perplexity(row):
    return f"{row['perplexity']:.{3 if row['perplexity'] < 10 else 2}f}"


def above(row):
    return f"{100 * (row['vs_dense'] - 1):+.2f}"


def sparsities(rows):
    return joined(f"{row['sparsity']:.1f}".removeprefix("0") for row in rows)


def sources(names):
    """A line of each group of files of the same command but for the text."""
    return [source(load(files[0], GPU), files[0], GPU, *files[1:]) for files in names if files]


def below(made, seeds=()):
    """What stands below the tables: densities and documents, sources."""
    _, gates = first_rows(next(iter(made.values())))
    documents = ", ".join(f"{record['rows'][0]['documents']} ({MODELS[model]}, {text})" for (model, text), record in made.items())
    files = [[f"yarn_{name}_{text}" for name, text in found if name == model] for found in (made, seeds) for model in dict.fromkeys(name for name, _ in found)]
    return [f"Blocks computed: {joined(short(row['density']) for row in gates)}. Documents of {gates[0]['length']} tokens: {documents}.", *sources(files)]


def yarn_headline():
    """Perplexities in three columns; of models trained together the one that was trained nearest to a sparsity."""
    made, lines = records(), []
    for (model, text), record in made.items():
        dense, gates = first_rows(record)
        lines.append([f"{MODELS[model]}, {text}", perplexity(dense), joined(map(perplexity, gates)), joined(map(perplexity, nearest(record)))])
        if has_lookups(record["rows"]):
            lines.append([f"the same{WITH_LOOKUPS}", "", joined(map(perplexity, own_rows(record, "seer"))), joined(map(perplexity, nearest(record, lookups=True)))])
    _, gates = first_rows(next(iter(made.values())))
    header = ["", "dense YaRN", f"gates after YaRN, {sparsities(gates)}", f"YaRN with SeerAttention, {sparsities(gates)}"]
    return markdown(header, lines) + "\n\n" + " ".join(below(made))


def published():
    """The published figures in the same columns."""
    made, lines = load("published", "."), []
    figures = lambda rows: joined(f"{row['perplexity']:.2f}" for row in rows)
    for text in dict.fromkeys(row["text"] for row in made["rows"]):
        of = {method: [row for row in made["rows"] if (row["text"], row["method"]) == (text, method)] for method in ("dense", *PUBLISHED)}
        lines.append([f"{made['model']}: {text}", figures(of["dense"]), *(figures(of[method]) for method in PUBLISHED)])
        ratios = ([{"vs_dense": row["perplexity"] / of["dense"][0]["perplexity"]} for row in of[method]] for method in PUBLISHED)
        lines.append(["above dense, %", "", *(joined(map(above, rows)) for rows in ratios)])
    header = ["published", "dense YaRN", *(f"{method}, {sparsities(of[method])}" for method in PUBLISHED)]
    return markdown(header, lines) + f"\n\n{made['source']}; [published.json](results/published.json)"


def yarn():
    """Of every trained model, with its gates and baselines, and of gates of another seed: perplexities, what they are above dense attention's with
    paired standard errors, and at the highest sparsity shares of the excess of gates after, with lookup heads where the row has some, else without."""
    made, seeds, tables = records(), {}, []
    for (model, text), record in made.items():
        dense, gates = first_rows(record)
        found = series_of(record)
        if (results.FOLDER / GPU / f"yarn_{model}{SEED}_{text}.json").exists():
            seeds[model + SEED, text] = other = load(f"yarn_{model}{SEED}_{text}", GPU)
            found |= {f"{name}, another seed": rows for name, rows in series_of(other).items() if "dense" not in name}
        lines = []
        for name, rows in found.items():
            cells = {row["sparsity"]: perplexity(row) + ("" if row is dense else f" ({above(row)} ± {short(100 * row['vs_dense_error'])} %)") for row in rows}
            share = excess(rows[-1], own_rows(record, "seer") if WITH_LOOKUPS in name else gates)
            lines.append([name, *(cells.get(row["sparsity"], "") for row in (dense, *gates)), "" if share is None else short(share)])
        header = [f"{MODELS[model]}, {text}", "dense", *(f"{row['sparsity']:.0%}" for row in gates), f"of the gates' excess at {gates[-1]['sparsity']:.0%}"]
        tables.append(markdown(header, lines))
    return "\n\n".join([*tables, *below(made, seeds)])


def first_documents(row, count):
    """The row's perplexity of that many documents."""
    return math.exp(sum(row["nll"][:count]) / count)


def yarn_rates():
    """What learning rates come to, on the documents that all runs of a model were measured on."""
    made = {(name, text): load(f"yarn_{name}_{text}", GPU) for name in RATES for text in TEXTS}
    lines, below, most = [], [], max(row["sparsity"] for record in made.values() for row in record["rows"])
    for model in dict.fromkeys(model for model, _ in RATES.values()):
        names = [name for name in RATES if RATES[name][0] == model]
        count = {text: min(len(made[name, text]["rows"][0]["nll"]) for name in names) for text in TEXTS}
        for name in names:
            cells = []
            for text in TEXTS:
                record = made[name, text]
                dense, gates = first_rows(record)
                joint = nearest(record)[-1]
                own, after, trained = (first_documents(row, count[text]) for row in (dense, gates[-1], joint))
                cells += [f"{own:.{3 if own < 10 else 2}f}", f"{100 * (after / own - 1):+.2f}", f"{100 * (trained / own - 1):+.2f}", f"{1 - (trained - own) / (after - own):.0%}"]
            lines.append([MODELS[model], *RATES[name][1], *cells])
        below.append(f"{MODELS[model]}: {', '.join(f'{n} documents of {text}' for text, n in count.items())}.")
    what = ("dense YaRN", f"gates after, {most:.0%}", f"trained at {most:.0%}", "taken away")
    header = ["per cent above dense", "learning rate", "of gates", "gates had seen", *(f"{text}: {name}" for text in TEXTS for name in what)]
    return markdown(header, lines) + "\n\n" + " ".join([*below, *sources([f"yarn_{name}_{text}" for text in TEXTS] for name in RATES)])


def yarn_every():
    """What it costs that gates learn in every n-th step only: at the highest sparsity of each text, what is above dense YaRN and the share of what gates after lose."""
    made = {text: load(f"yarn_embedded_every_{text}", GPU) for text in TEXTS}
    runs = {row["model"]: int(re.search(r"\d+$", row["model"].partition("_every")[2] or "1")[0]) for row in made[TEXTS[0]]["rows"] if "trained_sparsity" in row}
    lines = []
    for run, steps in sorted(runs.items(), key=lambda item: item[1]):
        cells = []
        for text in TEXTS:
            row = [row for row in made[text]["rows"] if row["model"] == run and row["method"] == "seer"][-1]
            cells += [f"{above(row)} ± {short(100 * row['vs_dense_error'])}", short(excess(row, first_rows(made[text])[1]))]
        lines.append([str(steps), *cells])
    header = ["a gradient for gates in every n-th step", *(f"{text}: {what}" for text in TEXTS for what in ("% above dense", "of the gates' excess"))]
    return markdown(header, lines) + "\n\n" + " ".join(sources([[f"yarn_embedded_every_{text}" for text in TEXTS]]))


def lengths():
    """Perplexity by length and share of blocks, as section 5 of the paper has it, of models that read 32k tokens by YaRN; nothing where it was not measured."""
    found = {(model, text): f"lengths_{model}_{text}" for model in MODELS for text in TEXTS if (results.FOLDER / GPU / f"lengths_{model}_{text}.json").exists()}
    if not found:
        return ""
    made = {key: load(name, GPU) for key, name in found.items()}
    tokens = sorted({row["length"] for record in made.values() for row in record["rows"]})
    lines = []
    for (model, text), record in made.items():
        of = {(row["method"], row["sparsity"], row["length"]): row for row in record["rows"]}
        for method, sparsity in dict.fromkeys(key[:2] for key in of):
            label = {"dense": "dense", "gate": "gates alone", "seer": "gates with lookup heads" if gates_alone(record["rows"]) == "gate" else "gates"}.get(method, METHODS.get(method, method))
            cells = [of.get((method, sparsity, length)) for length in tokens]
            lines.append([f"{MODELS[model]}, {text}", label, joined(dict.fromkeys(short(row["density"]) for row in cells if row)),
                          *("-" if row is None else perplexity(row) + ("" if method == "dense" else f" ({above(row)} %)") for row in cells)])
    text = "By length, dense YaRN and gates after it; in brackets what is above dense attention of the same length. Documents differ from length to length."
    files = list(found.values())
    return "\n\n".join([text, markdown(["", "blocks chosen by", "density", *(f"{length // 1024}k" for length in tokens)], lines), source(made[next(iter(found))], files[0], GPU, *files[1:])])
