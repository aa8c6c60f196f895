"""Figures in the sentences of README.md and docs/results.md: each is computed from results/ and stands in its page, so that neither changes alone."""
import json
import math
import re
import sys

import pytest

from conftest import ROOT

sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tools")]
import table  # noqa: E402
from tables import planted  # noqa: E402
from tables import yarn as yarn_tables  # noqa: E402

WORDS = {2: "two", 3: "three", 14: "fourteenth", 18: "eighteenth"}


def load(name, chip="nvidia-h200"):
    return json.loads((ROOT / "results" / chip / f"{name}.json").read_text())


def one(rows, **of):
    """The row of these values."""
    found = [row for row in rows if all(row.get(key) == value for key, value in of.items())]
    assert len(found) == 1, (of, len(found))
    return found[0]


def attention():
    """Of block-sparse attention: [(own row, {implementation: times as long})], as the tables have them."""
    return [(own, {name: ms / own["median_ms"] for name, ms in rivals.items() if ms}) for own, rivals in table.compared(load("block_sparse_attn")["rows"])
            if own["list_heads"] == own["heads_q"] and own["len_q"] == own["len_k"] and own["dtype"] == "bf16"]


def less_time(rival, all_blocks=False, **of):
    """By how much less time the rival takes at most, per cent."""
    ratios = [by[rival] for own, by in attention() if rival in by and (own["wanted_density"] >= 1) == all_blocks and all(own[key] == value for key, value in of.items())]
    return round(100 * (1 - min(ratios)))


def flash():
    ratios = [by["torch FlashAttention-2"] for own, by in attention() if own["head_dim"] == 128 and own["lists"] == "gate" and own["wanted_density"] == .1 and own["len_k"] >= 16384]
    return f"a {WORDS[int(min(ratios))]} to an {WORDS[int(max(ratios))]} of FlashAttention-2's time from 16k to 256k tokens"


def sooner(tokens):
    rows = [row for row in load("prefill")["rows"] if (row["model"], row["len_q"]) == ("llama-3.1-8b", tokens)]
    sparse = min(rows, key=lambda row: row["density"])["median_ms"]
    return min(row["median_ms"] for row in rows if row["implementation"] != "seer") / sparse


def first_token():
    at_128k, at_32k, at_8k = map(sooner, (131072, 32768, 8192))
    return (f"the first token of an 8B model at 128k comes {at_128k:.1f} times sooner than with the faster dense kernel "
            f"({at_32k:.1f} times at 32k, {at_8k:.1f} times at 8k")


def gate_step(name, tokens=32768):
    return one(load("attn_gate")["rows"], implementation=name, len_q=tokens)


def gates_cost():
    return "The gates cost {1} to {0} %".format(*(round(100 * gate_step("gate and selection", tokens)["of_sparse_attention"]) for tokens in (32768, 131072)))


def lookups_cost():
    """(times as long choosing takes, more of sparse attention's time) with a tenth of the heads as lookup heads, at 32k."""
    alone, both = (gate_step(name)["median_ms"] for name in ("gate and selection", "3 lookup heads: with gate and selection"))
    return both / alone, (both - alone) / gate_step("sparse attention")["median_ms"]


def lookups_time():
    return f"for {100 * lookups_cost()[1]:.0f} % more time of sparse attention at 32k"


def yarn(model, text):
    return load(f"yarn_{model}_{text}")["rows"]


TEXTS = ("books", "proofs")


def yarn_row(text, run="dense", method="seer", sparsity=.9):
    return one(yarn("smollm2", text), model=run, method=method, sparsity=sparsity)


def on_texts(form, digits, **of):
    """What a row is above dense YaRN on books and on proofs, per cent."""
    return form.format(*(f"{100 * (yarn_row(text, **of)['vs_dense'] - 1):+.{digits}f} %" for text in TEXTS))


def taken_away(model, text):
    """Of what gates after training lose at 90 %, in per cent."""
    rows = yarn(model, text)
    alone, joint = (one(rows, model=run, method=method, sparsity=.9) for run, method in (("dense", yarn_tables.gates_alone(rows)), ("joint90", "seer")))
    return 100 * (1 - (joint["vs_dense"] - 1) / (alone["vs_dense"] - 1))


def along():
    assert all(taken_away("embedded", text) == pytest.approx(30, abs=1.5) for text in TEXTS)
    books, proofs = (taken_away("smollm2", text) for text in TEXTS)
    return (f"takes away three tenths of what gates after training lose at 90 % on the embedded model, and on SmolLM2 {books:.0f} % and {proofs:.0f} %: "
            + on_texts("{} on books and {} on proofs above dense YaRN", 1, run="joint90") + on_texts(" (with the true map's blocks {} and {}).", 1, method="oracle"))


def far(method):
    """Of facts the farthest back, at 90 %."""
    rows = load("facts_smollm2_yarn")["rows"]
    cells = one(rows, method=method, sparsity=0. if method == "dense" else .9)["cells"]
    assert max(cell["distance"][0] for cell in cells) == 16384
    return [round(100 * cell["top1"]) for cell in cells if cell["distance"][0] == 16384][0]


def lookups_after():
    assert far("seer") / far("dense") == pytest.approx(.5, abs=.02)
    return "Gates after training with lookup heads, which take none, do better, " + on_texts("{} and {}", 1) + ", though of facts more than 16k tokens back they find half as many as dense attention"


def bars():
    assert all(yarn_row(text, "joint50", sparsity=.5)["vs_dense"] < 1.005 and yarn_row(text, "joint90")["vs_dense"] < 1.04 for text in TEXTS)
    return (on_texts("is {} and {} above dense YaRN at 50 % (books, proofs; wanted: +0.5 % at most), and ", 2, run="joint50", sparsity=.5) + on_texts("{} and {} at 90 % (+4 % at most). ", 2, run="joint90")
            + "The oracle, which knows the true map, is " + on_texts("{} and {}, and ", 2, method="oracle", sparsity=.5) + on_texts("{} and {}.", 2, method="oracle"))


def missed():
    """Aims of training with gates on the embedded model that are not reached, and where what is missing lies."""
    of = lambda text, **values: one(yarn("embedded", text), **values)
    both = lambda form, **values: form.format(*(above(of(text, **values)) for text in TEXTS))
    joint = dict(model="joint90", method="seer", sparsity=.9)
    itself = [100 * (math.exp(own - other) - 1) for text in TEXTS
              for own, other in zip(of(text, model="joint90", method="dense")["nll"], of(text, model="dense", method="dense")["nll"])]
    return (both("gates alone that were trained along should be within 3 % of dense YaRN at 90 % and are {} and {} above it (books, proofs), within 0.3 % at 50 % and are ", **joint)
            + both("{} and {}; ", model="joint50", method="seer", sparsity=.5) + "they should take away 30 % of what gates after training lose, and take away {:.0f} % and {:.0f} %. ".format(*(taken_away("embedded", text) for text in TEXTS))
            + both("Of what is above dense YaRN at 90 % {} and {} are the model that was trained at 90 %, run dense", model="joint90", method="dense") + f" ({min(itself):+.1f} to {max(itself):+.1f} % on each document). The rest is blocks that gates leave out in three of the 32 heads: "
            + both("with these as lookup heads the same weights are at {} and {}, ", **{**joint, "model": "joint90_lookup"}) + both("those trained at 50 % at {} and {}.", model="joint50_lookup", method="seer", sparsity=.5))


def embedded_facts():
    of = lambda method: one(load("facts_embedded_yarn")["rows"], method=method, sparsity=.9)
    assert all(cell["top1"] > .995 for cell in of("seer")["cells"]) and max(cell["distance"][0] for cell in of("seer")["cells"]) == 16384
    return f"those of the embedded model were found in windows of 32k, and it finds all facts with them at every distance, with gates alone {100 * of('gate')['top1']:.0f} %."


def all_of_it():
    rows = load("facts_embedded", "intel-xeon-2-threads-avx512bf16")["rows"]
    assert all(one(rows, method=method, sparsity=s)["top1"] > .99 for s in (.7, .9) for method in ("seer", "oracle")) and one(rows, method="gate", sparsity=.9)["top1"] < .2
    heads = json.loads((ROOT / "assets" / "reference" / "gates" / "config.json").read_text())["seer_lookup_heads"]
    assert sum(map(len, heads.values())) == 3
    return "three of the 32 that the embedded model has, bring back all of it."


def beyond():
    rows = (one(load(f"lengths_embedded_{text}")["rows"], method="seer", sparsity=.9, length=65536) for text in TEXTS)
    return "gates with lookup heads are at {} and {} at 90 %.".format(*map(above, rows))


def the_embedded_model():
    made, ppl = json.loads((ROOT / "results" / "embedded_model.json").read_text()), {text: yarn("embedded", text) for text in TEXTS}
    valid = [line for line in made["base"]["metrics"] if "valid_books-valid" in line][-1]
    dense = [one(rows, model="dense", method="dense") for rows in ppl.values()]
    recall = min(cell["top1"] for cell in one(load("facts_embedded_yarn")["rows"], method="dense")["cells"])
    return (f"{made['base']['tokens'] / 1e6:,.0f} M tokens in windows of 2k, then 8k (on held-out texts {valid['valid_books-valid']:.2f} nats a token of books, {valid['valid_proofs-valid']:.2f} of proofs, at 8k), {made['model']['tokens'] / 1e6:.0f} M at 32k by YaRN "
            f"(perplexity of test documents there {dense[0]['perplexity']:.2f} and {dense[1]['perplexity']:.2f}; {recall:.2f} of planted facts' tokens are found), gates of {made['gates']['tokens'] / 1e6:.0f} M tokens at 32k, and lookup heads. "
            f"It took {sum(made[stage]['seconds'] for stage in ('base', 'model', 'gates')) / 60:.0f} minutes of an H200 that had other work, too; weights are {made['bytes_of_weights'] / 2**20:.1f} MiB.")


def seeds_agree():
    for text in TEXTS:
        for again in load(f"yarn_smollm2_seed2_{text}")["rows"]:
            assert again["vs_dense"] == pytest.approx(yarn_row(text, method=again["method"], sparsity=again["sparsity"])["vs_dense"], abs=1e-3)
    return "Gates of another seed differ from the first by less than a tenth of a per cent at every sparsity."


def better_than_dense():
    for text, best in (("books", .7), ("proofs", .9)):
        for s in (.5, .6, .7, .8, .9):
            own, true = (yarn_row(text, method=method, sparsity=s) for method in ("seer", "oracle"))
            assert true["vs_dense"] < own["vs_dense"] + own["vs_dense_error"] and (s > best or own["vs_dense"] < 1 - 2 * own["vs_dense_error"])
    behind = (f"{100 * (yarn_row(text)['perplexity'] / yarn_row(text, method='oracle')['perplexity'] - 1):.1f} %" for text in TEXTS)
    return "at every sparsity, and books up to 70 %: over 32k tokens this small model seems to do better without what it gives little weight to. So less than dense is no merit of gates, and the oracle is the measure: at 90 % gates with lookup heads are {} and {} above it.".format(*behind)


def far_away():
    near = lambda method: planted.right([cell for cell in one(load("facts_smollm2_yarn")["rows"], method=method, sparsity=0. if method == "dense" else .9)["cells"] if cell["distance"][1] <= 16384])
    assert float(near("seer")) == pytest.approx(float(near("dense")), abs=.03)
    for run in ("joint50", "joint90"):
        for method in ("seer", "gate"):
            own, other = (one(load(f"facts_smollm2_{name}")["rows"], method=method, sparsity=.9) for name in (run, "yarn"))
            assert abs(own["top1"] - other["top1"]) < (own["top1_error"] ** 2 + other["top1_error"] ** 2) ** .5
    alone, joint = (one(load(f"copies_smollm2_{name}")["rows"], method="gate", sparsity=.9)["top1"] for name in ("yarn", "joint90"))
    adds = f"and adds {joint - alone:.2f} to copies of gates alone ({joint:.2f} for {alone:.2f}).".replace("0.", ".")
    assert adds in (ROOT / "docs" / "results.md").read_text()
    return f"gates with lookup heads at 90 % find {far('seer')} % of the digits, dense attention {far('dense')} %, the oracle {far('oracle')} %; up to 16k they find about as many as dense attention."


def trained_at(name, text, run):
    """What that run is above dense YaRN at 90 %, per cent, on the documents that all runs of its model were measured on."""
    model = yarn_tables.RATES[name][0]
    count = min(len(load(f"yarn_{other}_{text}")["rows"][0]["nll"]) for other in yarn_tables.RATES if yarn_tables.RATES[other][0] == model)
    rows = load(f"yarn_{name}_{text}")["rows"]
    return 100 * (yarn_tables.first_documents(one(rows, model=run, method="seer", sparsity=.9), count) / yarn_tables.first_documents(rows[0], count) - 1)


def rates():
    found = [trained_at(name, text, run) for pair in ((("smollm2", "joint90"), ("smollm2_with_gates5e-4", "joint90")), (("embedded_with_gates1.5e-3", "joint90_gates1.5e-3"), ("embedded", "joint90")))
             for text in TEXTS for name, run in pair]
    return ("SmolLM2 is +{:.2f} % in place of +{:.2f} % above dense YaRN on books, +{:.2f} % in place of +{:.2f} % on proofs, "
            "the embedded model +{:.2f} % in place of +{:.2f} % and +{:.2f} % in place of +{:.2f} %").format(*found)


def faster_gates():
    shares = [one(load(f"yarn_embedded_with_gates1.5e-3_{text}")["rows"], model="joint90_gates1.5e-3", method="seer", sparsity=.9)["excess"] for text in TEXTS]
    return ("With gates that learn three times as fast gates alone are {:.2f} % and {:.2f} % above dense YaRN at 90 %, and take away ".format(*(trained_at("embedded_with_gates1.5e-3", text, "joint90_gates1.5e-3") for text in TEXTS))
            + "{:.0f} % and {:.0f} %.".format(*(100 * (1 - share) for share in shares)))


def cost():
    seconds = {row["stage"]: row["seconds"] for row in load("yarn_smollm2_runs")["rows"] if "stage" in row}
    assert seconds["lookup heads of all four"] == 4 * 4
    minutes = (round(s / 60) for s in (sum(seconds.values()), seconds["dense"], seconds["joint50"], seconds["joint90"]))
    return "four seconds a model, in windows of 8k. All of it took {} minutes of an H200: dense training {}, at 50 % sparsity {}, at 90 % {}, gates and evaluation the rest".format(*minutes)


def facts(method):
    return round(100 * one(load("methods_facts_smollm2")["rows"], method=method, sparsity=0. if method == "dense" else .9)["top1"])


def lost():
    books, proofs = (100 * (one(load(f"methods_ppl_smollm2_{text}")["rows"], method="seer", sparsity=.9)["vs_dense"] - 1) for text in ("books", "proofs"))
    return (f"SmolLM2-135M at 90 % sparsity finds {facts('seer')} % of planted digits, with dense attention {facts('dense')} %, "
            f"and its perplexity is {books:.0f} % higher on books and {proofs:.0f} % on proofs")


def thousandths(value):
    return f"{value:.3f}".removeprefix("0")  # .809, 1.070


def measured(what, method, sparsity=.9):
    """Of methods_*: the share of facts or copies that is right, or perplexity against dense attention's."""
    file, key = (f"{what}_smollm2", "top1") if what in ("facts", "copies") else (f"ppl_smollm2_{what}", "vs_dense")
    value = one(load(f"methods_{file}")["rows"], method=method, sparsity=0. if method == "dense" else sparsity)[key]
    return thousandths(value) if key == "top1" else f"x{value:.3f}"


def of_gates(what, setting, value, **more):
    return thousandths(one(load("gate_settings_smollm2")["rows"], setting=setting, value=value, method="seer", **more)[what]["score"])


def aims():
    error = thousandths(one(load("methods_facts_smollm2")["rows"], method="seer", sparsity=.9)["top1_error"])
    return (f"find {measured('facts', 'seer')} ± {error} of the digits (aim .85; dense attention {measured('facts', 'dense')}, the true map for all heads {measured('facts', 'oracle')}) "
            f"and {measured('copies', 'seer')} of the copies' tokens (aim .85); perplexity is {measured('books', 'seer')} on books (aim 1.06) and {measured('proofs', 'seer')} on proofs (aim 1.09), "
            f"where the true map is no better ({measured('books', 'oracle')}, {measured('proofs', 'oracle')}).")


def more_aims():
    few = {what: of_gates(what, "lookups", .05, sparsity=.9) for what in ("facts", "copies")}
    at_70 = {what: measured(what, "seer", .7) for what in ("facts", "copies", "books", "proofs")}
    return (f"they find {few['facts']} and {few['copies']} (aims .78, .80). At density {thousandths(one(load('methods_facts_smollm2')['rows'], method='seer', sparsity=.7)['density'])} all is reached but one: "
            f"{at_70['facts']} and {at_70['copies']} (aims .80, .82), books {at_70['books']} (aim 1.005), proofs {at_70['proofs']} (aim 1.00).")


def threshold():
    rule, equal = ({what: of_gates(what, "rules", 52428800., **more) for what in ("facts", "books", "proofs")} for more in ({"rule": "threshold", "strength": .03}, {"rule": "nz_ratio"}))
    return (f"`threshold` 0.03 still gains on proofs (x{rule['proofs']}, equal numbers of blocks x{equal['proofs']}), no longer on books (x{rule['books']} and x{equal['books']}), "
            f"and loses single facts ({rule['facts']} and {equal['facts']}).")


NAMES = {"streaming": "the window", "pooled": "means of q and k", "seer": "gates", "duo": "DuoAttention", "minference_vs": "MInference", "flexprefill": "FlexPrefill", "quest": "Quest", "xattention": "XAttention"}


def fastest_first():
    """Of methods without the true map: choosing and attention together, by length."""
    of = lambda tokens: {row["implementation"]: row["gate_ms"] + row["select_ms"] + row["attention_ms"] for row in load("prefill_methods")["rows"] if row["len_q"] == tokens and row["implementation"] in NAMES}
    short, long = (sorted(of(tokens).items(), key=lambda one: one[1]) for tokens in (32768, 131072))
    listed = lambda order: ", ".join(f"{NAMES[name]} ({ms:.0f}{'' if i else ' ms'})" for i, (name, ms) in enumerate(order))
    return f"Choosing and attention together, the fastest first: at 32k {listed(short)}; at 128k {listed(long)}."


def what_even_costs():
    of = lambda name, **more: one(load(name)["rows"], model="llama-3.1-8b", len_q=131072, implementation="seer", **more)
    even, own = of("prefill_methods"), min((row for row in load("prefill")["rows"] if (row["model"], row["len_q"], row["implementation"]) == ("llama-3.1-8b", 131072, "seer")), key=lambda row: row["density"])
    attention = [row["attention_ms"] for row in load("prefill_methods")["rows"] if row["len_q"] == 131072 and row["lists"] != "dense"]
    return (f"sparse attention takes up to {100 * (1 - min(attention) / of('prefill_methods')['attention_ms']):.0f} % less time there after long choosing, at the chip's power limit. "
            f"To give every method equally many blocks a row takes longer than the gates' own rule: {even['select_ms']:.0f} ms of the {even['gate_ms'] + even['select_ms']:.0f} at 128k, "
            f"in *the first token* below {own['select_ms']:.0f} ms.")


def shares_of_heads():
    of = lambda value: one(load("gate_settings_smollm2")["rows"], setting="lookups", value=value, method="seer", sparsity=.9)
    few, tenth, more = map(of, (.02, .1, .15))
    alone, dense = (one(load("methods_facts_smollm2")["rows"], method=method, sparsity=s)["top1"] for method, s in (("gate", .9), ("dense", 0.)))
    assert more["copies"]["score"] > tenth["copies"]["score"] and all(more[text]["score"] < tenth[text]["score"] for text in TEXTS)
    figures = (f"{thousandths(row['facts']['score'])} ± {thousandths(row['facts']['error'])}" for row in (tenth, more))
    return (f"Five heads bring back {100 * (few['facts']['score'] - alone) / (dense - alone):.0f} % of the digits that gates alone lose at 90 %. "
            "Beyond a tenth copies and perplexity still gain a little, facts nothing ({} and {}).".format(*figures))


def needles():
    hundredths = lambda value: f"{value:.2f}".removeprefix("0")
    rows = {(row["length"], row["method"]): row for name in planted.NEEDLES for row in load(name)["rows"] if row["sparsity"] in (0., .9)}
    found = lambda length, method: hundredths(rows[length, method]["top1"])
    both = lambda length: f"{found(length, 'seer')} ± {hundredths(rows[length, 'seer']['top1_error'])}"
    at = lambda method, depth: planted.right([cell for cell in rows[8192, method]["cells"] if cell["depth"] == depth])
    best = max((row for (length, method), row in rows.items() if length == 8192 and method not in ("dense", "seer", "gate", "oracle")), key=lambda row: row["top1"])
    assert rows[2048, "seer"]["density"] * 33 / 2 == pytest.approx(2, abs=.05)  # of 1 to 32 visible blocks
    return (f"find {both(8192)} of the digits (dense attention {found(8192, 'dense')}, the true map {found(8192, 'oracle')}), gates alone {found(8192, 'gate')}, the best of the others {hundredths(best['top1'])}. "
            f"At 4k they find {both(4096)} (dense {found(4096, 'dense')}). At 2k, where a row keeps two blocks on average, they find {found(2048, 'seer')} and the true map {found(2048, 'oracle')}: too few blocks, whoever chooses. "
            f"Least of all is kept of what stands a tenth of a text of 8k deep ({at('seer', 10)}; the true map {at('oracle', 10)}, dense {at('dense', 10)}); its very first sentence not even dense attention finds ({at('dense', 0)}).")


def on_xeon():
    rows = load("run", "intel-xeon-2-threads-avx512bf16")["rows"]
    dense, near, few = (one(rows, method=method, sparsity=s) for method, s in (("dense", 0.), ("seer", .7), ("seer", .9)))
    assert near["attention_ms"] == pytest.approx(dense["attention_ms"], rel=.1)
    return f"takes {dense['attention_ms'] / 1e3:.1f} s for the 8,192 tokens above, and ours as long at a density of {near['density']:.1f} ({few['attention_ms'] / 1e3:.1f} s at {few['density']:.2f})"


def maps():
    times = lambda head_dim: [one(load("pooled_attn")["rows"], implementation=name, head_dim=head_dim, len_q=8192, **more)["median_ms"]
                              for name, more in (("seer", {"map_heads": "q"}), ("torch cuDNN", {}))]
    low, high = (round(own / cudnn) for own, cudnn in (times(96), times(256)))
    return f"takes {WORDS[low]} to {WORDS[high]} times as long as cuDNN's attention without one"


def above(row):
    return f"{100 * (row['vs_dense'] - 1):.2f} %"


def products():
    rows = [row for row in load("prefill")["rows"] if (row["model"], row["len_q"]) == ("llama-3.1-8b", 32768)]
    of = lambda name: min((row for row in rows if row["implementation"] == name), key=lambda row: row["density"])["products_ms"]
    longer = max(row.get("overheads", {}).get("dense, FlashAttention-2", 0) for row in load("prefill")["rows"])
    return (f"{of('dense, FlashAttention-2'):.0f} ms beside FlashAttention-2, {of('dense, cuDNN'):.0f} beside cuDNN, {of('seer'):.0f} at 90 %). "
            f"For the same reason the sparse run is up to {100 * longer:.0f} % longer than its parts")


def setting(run, name):
    return one(load("yarn_smollm2_runs")["rows"], run=run)["settings"][name]


def million_tokens(model, run):
    return one(load(f"yarn_{model}_runs")["rows"], run=run)["tokens"][-1] / 1e6


def published():
    rows = json.loads((ROOT / "results" / "published.json").read_text())["rows"]
    of = lambda method, s: one(rows, text="PG19", method=method, sparsity=s)["perplexity"]
    dense = of("dense", 0)
    after, joint = (100 * (of(method, .9) / dense - 1) for method in ("gates after YaRN", "YaRN with SeerAttention"))
    return f"(the published Llama-3-8B: {1 - joint / after:.0%}, from +{after:.1f} % to +{joint:.1f} %)".replace("%,", " %,", 1)


def settings_of_training():
    of = lambda setting, value=None: one(load("gate_ablations_embedded", "intel-xeon-2-threads-avx512bf16")["rows"], setting=setting, value=value, method="seer")
    blocks = default, small, large = of("default"), of("block", 32.), of("block", 128.)
    worse, level = [of("pooling", "Qavg_Kavg"), of("loss", "mse")], [of("pooling", name) for name in ("Qavg_Kmaxmin", "Qmaxminavg_Kmaxminavg")]
    over = lambda row, text: f"{100 * (row[text]['score'] - 1):+.0f} %"
    right = lambda row: f"{row['facts']['score']:.2f}".removeprefix("0")
    error = lambda row: math.hypot(row["books"]["error"], default["books"]["error"])
    assert max(row["facts"]["density"] for row in blocks) - min(row["facts"]["density"] for row in blocks) < .02
    assert all(row["books"]["score"] - default["books"]["score"] > 1.5 * error(row) for row in worse) and all(abs(row["books"]["score"] - default["books"]["score"]) < error(row) for row in level)
    assert all(abs(row["proofs"]["score"] - default["proofs"]["score"]) < math.hypot(row["proofs"]["error"], default["proofs"]["error"]) for row in (*worse, *level))
    return ("blocks of 32, 64 and 128 are {}, {} and {} above dense attention on proofs, and find {}, {} and {} of the facts; ".format(*(over(row, "proofs") for row in (small, default, large)), *map(right, (small, default, large)))
            + f"on GPUs there are kernels for 64 and 128. On books keys' means alone (`Qavg_Kavg`, {over(worse[0], 'books')}) and the loss of the paper's first version (`mse`, {over(worse[1], 'books')}) lose more than the default ({over(default, 'books')}); "
            "keys without their means (`Qavg_Kmaxmin`) and three poolings of q do not differ from it by more than the errors, and on proofs nothing but the size of blocks does.")


def settings_on_smollm2():
    of = lambda setting, value=None: one(load("gate_ablations_smollm2")["rows"], setting=setting, value=value, method="seer", sparsity=.9)
    over = lambda row: "{:+.0f} % and {:+.0f} %".format(*(100 * (row[text]["score"] - 1) for text in ("books", "proofs")))
    means, without, all_of_q = (of("pooling", name) for name in ("Qavg_Kavg", "Qavg_Kmaxmin", "Qmaxminavg_Kmaxminavg"))
    alone = [of("default"), means, without, all_of_q, of("block", 128.), of("loss", "mse")]
    assert all(row["facts"]["score"] < .14 for row in alone) and all(abs(row["facts"]["density"] - .091) < .001 for row in alone)
    return (f"gates alone are {over(of('default'))} above dense attention on books and proofs, with keys' means alone {over(means)}, without them {over(without)}, with three poolings of q {over(all_of_q)}, "
            f"with blocks of 128 {over(of('block', 128.))}, by the loss `mse` {over(of('loss', 'mse'))}. None of these finds 14 % of the digits.")


def a_real_run():
    of = lambda sparsity: one(load("run_smollm2")["rows"], method="seer", sparsity=sparsity)["vs_dense"]
    return f"x{of(.5):.3f}, x{of(.7):.3f} and x{of(.9):.3f} of dense attention's perplexity at 50, 70 and 90 %"


README = [
    flash, first_token, lost, gates_cost, along, lookups_after, on_xeon, maps, lookups_time, a_real_run,
    lambda: "takes up to {} % less time at 2k, {} % at 4k, {} % at 8k, {} % at 32k, {} % at 128k, and {} % for D = 96".format(
        *(less_time("cuDNN block-sparse", len_k=1024 * length, head_dim=128) for length in (2, 4, 8, 32, 128)), less_time("cuDNN block-sparse", head_dim=96)),
    lambda: "dense cuDNN takes up to {} % less at 32k and 64k, {} % for D = 96, and {} % for D = 256".format(
        max(less_time("torch cuDNN", True, len_k=length, head_dim=128) for length in (32768, 65536)), *(less_time("torch cuDNN", True, head_dim=head_dim) for head_dim in (96, 256))),
    lambda: f"(SmolLM2 at 90 %: {facts('gate')} % of planted digits, dense {facts('dense')} %); with a tenth of the heads as lookup heads, which `seer distill` looks for by default, it is {facts('seer')} %",
]
RESULTS = [
    published, products, aims, more_aims, threshold, fastest_first, what_even_costs, needles, shares_of_heads, settings_of_training, settings_on_smollm2, bars, missed, faster_gates, embedded_facts, all_of_it, beyond, the_embedded_model, seeds_agree, better_than_dense, far_away, cost,
    lambda: "20 % with three of them is met ({:.1f} %), 13 % with one is missed ({:.1f} %)".format(
        *(100 * gate_step(f"{heads}: with gate and selection")["of_sparse_attention"] for heads in ("3 lookup heads", "1 lookup head"))),
    lambda: f"{million_tokens('embedded', 'dense'):.0f} M tokens of books and proofs in each of the runs, the same windows in the same order; gates after it saw {million_tokens('embedded', 'after'):.0f} M.",
    lambda: f"{million_tokens('smollm2', 'joint90'):.1f} M tokens a run (100 steps of 8 windows of 32,768), AdamW with {setting('joint90', 'learning_rate')}, gates that are trained along with {setting('joint90', 'gate_learning_rate')}. "
            f"These begin as gates of the short model that have seen {one(load('yarn_smollm2_runs')['rows'], stage='gates of the short model')['tokens'] / 1e6:.1f} M tokens at 8k; "
            f"gates after the dense run saw {million_tokens('smollm2', 'after'):.1f} M at 32k.",
    lambda: f"a tenth of the heads makes choosing {lookups_cost()[0]:.1f} times as long",
    lambda: "{:.0f} with 32 kv heads, {:.0f} with 8".format(*(next(
        row["credited_tflops"] for row in load("block_sparse_attn_backward")["rows"] if row["implementation"] == "seer" and (row["len_q"], row["head_dim"], row["heads_kv"]) == (32768, 128, kv)
        and row["density"] < .2) for kv in (32, 8))),
    lambda: "it takes away {:.0f} % on books and {:.0f} % on proofs, on the embedded model three tenths".format(*(taken_away("smollm2", text) for text in TEXTS)),
    lambda: on_texts("run dense, is above dense YaRN, too ({} and {})", 1, run="joint90", method="dense", sparsity=0.),
    lambda: on_texts("gates after training with them are {} and {} at 90 %. ", 2) + on_texts("Both together are best: {} and {}.", 2, run="joint90_lookup"),
]


def assert_in(page, sentence):
    words = lambda text: re.sub(r"\s+", " ", text)
    assert words(sentence) in words((ROOT / page).read_text())


@pytest.mark.parametrize("page, sentence", [("README.md", made) for made in README] + [("docs/results.md", made) for made in RESULTS] + [("docs/long_context.md", rates)])
def test_figures(page, sentence):
    assert_in(page, sentence())


def test_the_run_that_readme_shows():
    rows = load("run", "intel-xeon-2-threads-avx512bf16")["rows"]
    shown = re.findall(r"^  8192  .*", (ROOT / "README.md").read_text(), flags=re.M)
    assert len(shown) == len(rows)
    for line, row in zip(shown, rows):
        setting = [] if row["method"] == "dense" else ["sparsity", f"{row['sparsity']:.1f}"]
        assert line.split() == ["8192", row["method"], *setting, f"{row['density']:.3f}", f"{row['perplexity']:.3f}", f"x{row['perplexity'] / rows[0]['perplexity']:.4f}",
                                f"{row['attention_ms']:.0f}", "ms", f"{row['prefill_ms']:.0f}", "ms"]
