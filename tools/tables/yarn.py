"""Tables of long-context fine-tuning in their published form: dense, gates distilled after it, both trained together."""
from . import results
from .results import GPU, load, markdown, source

# Of results/<chip>/yarn_<name>_<text>.json: what the page calls the model. Those that are not there are left out.
MODELS = {"embedded": "embedded model, 7.6 M", "smollm2": "SmolLM2-135M"}
SEEDS = {f"{model}_seed2": f"{name}, gates of another seed" for model, name in MODELS.items()}
TEXTS = ("books", "proofs")
PUBLISHED = ("gates after YaRN", "YaRN with SeerAttention")  # of results/published.json
COLUMNS = {"gate": "gates after", "seer": "gates after", "oracle": "oracle", "streaming": "sink + window"}
LOOKUP = "_lookup"  # ends the name of a model whose gates have lookup heads


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
    return "gate" if any(row["method"] == "gate" for row in rows) else "seer"


def first_rows(made):
    """The dense row, and those of the same model's gates by sparsity, ascending."""
    own = [row for row in made["rows"] if row.get("model") == made["rows"][0].get("model")]
    gates = sorted((row for row in own if row["method"] == gates_alone(own)), key=lambda row: row["sparsity"])
    return next(row for row in own if row["method"] == "dense"), gates


def columns_of(made):
    """{heading: rows by sparsity, ascending} of a record: the first model's gates and baselines, the others' gates."""
    columns, first = {}, made["rows"][0].get("model")
    with_lookups = f"{COLUMNS['seer']}, with lookup heads" if gates_alone(made["rows"]) == "gate" else COLUMNS["seer"]
    for row in sorted(made["rows"], key=lambda row: row["sparsity"]):
        if row.get("model") == first and row["method"] in COLUMNS:
            columns.setdefault(with_lookups if row["method"] == "seer" else COLUMNS[row["method"]], []).append(row)
        elif row.get("model") != first and row["method"] == "seer":
            name = row["model"].removesuffix(LOOKUP)
            columns.setdefault(f"trained at {row['trained_sparsity']:.0%} ({name})" + (", with lookup heads" if name != row["model"] else ""), []).append(row)
    order = [COLUMNS["gate"], with_lookups, *COLUMNS.values()]
    return {name: columns[name] for name in sorted(columns, key=lambda name: (order.index(name) if name in order else 9, name))}


def nearest(made):
    """At each sparsity the row of the model that was trained nearest to it, the sparser of two least: the published choice."""
    first = made["rows"][0].get("model")
    best = {}
    for row in made["rows"]:
        if row.get("model") == first or row["method"] != "seer" or row["model"].endswith(LOOKUP):
            continue
        off = (round(abs(row["sparsity"] - row["trained_sparsity"]), 6), row["trained_sparsity"])
        if row["sparsity"] not in best or off < best[row["sparsity"]][0]:
            best[row["sparsity"]] = off, row
    return [row for _, (_, row) in sorted(best.items())]


def joined(cells):
    return " / ".join(cells)


def short(value):
    return f"{value:.2f}".removeprefix("0")


def perplexity(row):
    return f"{row['perplexity']:.{3 if row['perplexity'] < 10 else 2}f}"


def above(row):
    return f"{100 * (row['vs_dense'] - 1):+.2f}"


def excess(row):
    return short(row["excess"]) if "excess" in row else "-"


def sparsities(rows):
    return joined(f"{row['sparsity']:.1f}".removeprefix("0") for row in rows)


def below(made):
    """What stands below the table: densities and documents, sources."""
    _, gates = first_rows(next(iter(made.values())))
    names = {**MODELS, **SEEDS}
    documents = ", ".join(f"{record['rows'][0]['documents']} ({names[model]}, {text})" for (model, text), record in made.items())
    lines = [f"Blocks computed: {joined(short(row['density']) for row in gates)}. Documents of {gates[0]['length']} tokens: {documents}."]
    for model in names:
        if files := [f"yarn_{name}_{text}" for name, text in made if name == model]:
            lines.append(source(load(files[0], GPU), files[0], GPU, *files[1:]))
    return lines


def yarn_headline():
    """Perplexities in three columns; of models trained together the one that was trained nearest to a sparsity."""
    made, lines = records(), []
    for (model, text), record in made.items():
        dense, gates = first_rows(record)
        lines.append([f"{MODELS[model]}, {text}", perplexity(dense), joined(map(perplexity, gates)), joined(map(perplexity, nearest(record)))])
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
    """Of every trained model and baseline: perplexities, what they are above dense attention's, shares of the gates' excess."""
    made, lines, names = records([*MODELS, *SEEDS]), [], []
    for (model, text), record in made.items():
        dense, columns = first_rows(record)[0], columns_of(record)
        names += [name for name in columns if name not in names]
        lines.append([f"{ {**MODELS, **SEEDS}[model]}, {text}", perplexity(dense), {name: joined(map(perplexity, of)) for name, of in columns.items()}])
        lines.append(["above dense, %", "", {name: joined(map(above, of)) for name, of in columns.items()}])
        lines.append(["of the gates' excess", "", {name: joined(map(excess, of)) for name, of in columns.items() if "trained" in name}])
    _, gates = first_rows(next(iter(made.values())))
    header = ["", "dense YaRN", *(f"{name}, {sparsities(gates)}" for name in names)]
    table = markdown(header, [[label, value, *(cells.get(name, "") for name in names)] for label, value, cells in lines])
    return "\n\n".join([table, *below(made)])


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
            label = {"dense": "dense", "gate": "gates alone", "seer": "gates with lookup heads" if gates_alone(record["rows"]) == "gate" else "gates"}.get(method, COLUMNS.get(method, method))
            cells = [of.get((method, sparsity, length)) for length in tokens]
            lines.append([f"{MODELS[model]}, {text}", label, joined(dict.fromkeys(short(row["density"]) for row in cells if row)),
                          *("-" if row is None else perplexity(row) + ("" if method == "dense" else f" ({above(row)} %)") for row in cells)])
    text = "By length, dense YaRN and gates after it; in brackets what is above dense attention of the same length. Documents differ from length to length."
    files = list(found.values())
    return "\n\n".join([text, markdown(["", "blocks chosen by", "density", *(f"{length // 1024}k" for length in tokens)], lines), source(made[next(iter(found))], files[0], GPU, *files[1:])])
