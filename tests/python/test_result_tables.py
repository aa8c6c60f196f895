"""tools/result_tables.py on small records: rows appear, ratios are the right way round, what is missing is said."""
import json
import math
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import result_tables  # noqa: E402
from tables import gate_settings, methods, models, operations, planted, quality, results, yarn  # noqa: E402
from test_bench import PROMPTS, cells, made_record  # noqa: E402


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes results/<chip>/<name>.json with these rows, of the GPU where none is named."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")

    def write(name, rows, chip=results.GPU, **more):
        path = tmp_path / "results" / chip / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made_record(rows, **more)))

    return write


def lines_of(text):
    """The cells of a table's lines by their first cell, and its header."""
    header, _, *lines = cells(text)
    return header, {line[0]: line[1:] for line in lines}


def step(name, ms, tokens=32768, density=None):
    return {"implementation": name, "len_q": tokens, "median_ms": ms, "of_sparse_attention": ms / 2,
            "density": density, "status": "ok"}


def test_gate(put):
    put("attn_gate", [step("pool q", .1), step("gate and selection", .5), step("sparse attention", 2., density=.1),
                      step("select top_p", .2, density=.11), step("select threshold", .02, density=.84),
                      step("pool q", .04, 8192), step("sparse attention", 2., 131072, .1)],
        command="python bench/gates.py --out /a")
    text = operations.gate_gpu()
    header, lines = lines_of(text)
    assert [cell[:4] for cell in header[1:]] == ["32k,", "128k"]
    assert lines == {"pool q, with its RoPE": ["0.100 ms (5.0%)", "-"],
                     "**gate and selection**": ["**0.500 ms (25.0%)**", "-"],
                     "sparse attention": ["2.000 ms", "2.000 ms"],
                     "instead: select, `threshold`": ["0.020 ms (1.0%, keeps 84%)", "-"],
                     "instead: select, `top_p`": ["0.200 ms (10.0%)", "-"]}
    assert text.endswith("`python bench/gates.py`; [attn_gate.json](results/nvidia-h200/attn_gate.json)")


def test_first_token(put):
    put("prefill", PROMPTS)
    short, long = cells(models.prefill_gpu())[2:]
    assert long == ["m", "32k", "1.60 s", "0.80 s", "0.60 s", "0.50 s", "0.40 s", "**2.00x**", "3.0%",
                    "6.2% / 3.1% / 25% / 50% / 16%", "0.5 GiB"]
    assert short[:8] == ["m", "8k", "-", "-", "-", "-", "0.10 s", "-"]


def test_models_of_transformers(put):
    def prompt(name, ms, tokens, peak=None, **more):
        return {"model": "m", "layers": 4, "len_q": tokens, "implementation": name, "median_ms": ms, "peak_mib": peak, "status": "ok", **more}

    own = {"attached_ms": 12., "operations_ms": 10.}
    put("attach", [prompt("seer, 90%", 100., 32768, 2048, **own), prompt("seer, 50%", 200., 32768, 2048, attached_ms=9., operations_ms=10.), prompt("sdpa, cuDNN", 300., 32768, 1024),
                   prompt("flex_attention", 250., 32768, 512), prompt("sdpa, cuDNN", 30., 8192, 512), {**prompt("flex_attention", 1., 8192), "status": "no memory"}], rivals={"transformers": "5.0"})
    text = models.attach()
    header, *lines = [line for i, line in enumerate(cells(text)) if i != 1]
    assert header == ["model", "tokens", "", "attached, 50% sparse", "attached, 90% sparse", "sdpa, cuDNN", "FlexAttention", "90% against fastest dense", "peak memory, 90% / dense", "attach adds, 50% / 90%"]
    assert lines == [["m, 4 layers", "8k", "GPU", "-", "-", "0.0300 s", "-", "-", "0.50 GiB", "- / -"],
                     ["m, 4 layers", "32k", "GPU", "0.200 s", "0.100 s", "0.300 s", "0.250 s", "**2.50x**", "2.00 / 0.50 GiB", "-1.0 ms (-10.0%) / +2.0 ms (+20.0%)"]]
    put("attach", [prompt("seer, 90%", 1e4, 8192, **own), prompt("sdpa", 3e4, 8192)], results.CPU, threads=2, rivals={"transformers": "4.9"})
    text = models.attach()
    assert cells(text)[2:][-1] == ["m, 4 layers", "8k", "CPU", "-", "10.0 s", "-", "-", "30.0 s", "**3.00x**", "-", "- / +2.0 ms (+20.0%)"]
    assert "; transformers 4.9, " in text and "(results/amd-epyc-2-threads-avx512bf16/attach.json)" in text


def test_what_choosing_takes(put):
    def prompt(name, choose, attend, tokens=8192):
        return {"implementation": name, "lists": "dense" if name.startswith("dense") else name, "model": "m", "len_q": tokens, "density": .1,
                "gate_ms": choose * .75, "select_ms": choose * .25, "attention_ms": attend}

    rows = [prompt("dense, FlashAttention-2", 0., 400.), prompt("dense, cuDNN", 0., 200.), prompt("seer", 4., 40.), prompt("quest", 80., 40.),
            prompt("dense, cuDNN", 0., 800., 16384), prompt("seer", 40., 120., 16384)]
    put("prefill_methods", rows, results.CPU, threads=2)
    text = models.choosing()
    header, lines = lines_of(text)
    assert header[2:] == ["8k: choosing", "attention", "both, of dense", "16k: choosing", "attention", "both, of dense"]
    assert lines == {"dense, FlashAttention-2": ["1", "", "400 ms", "200%", "-", "-", "-"],
                     "dense, cuDNN": ["1", "", "200 ms", "100%", "", "800 ms", "100%"],
                     "**learned gates**": [".10 / .10", "4.0 ms", "40 ms", "22%", "40 ms", "120 ms", "20%"],
                     "bounds of keys (Quest)": [".10", "80 ms", "40 ms", "60%", "-", "-", "-"]}
    put("prefill_methods", rows[:3])
    assert "results/nvidia-h200/prefill_methods.json" in models.choosing()


def distilled(rate, streamed=False, **more):
    return {"model": "m", "len_q": 65536, "dtype": "bf16", "sequences": 1, "streamed": streamed, "tokens_per_s": rate,
            "hours": 1e5 / rate, "attention_share": .5, "gate_share": .01, "model_share": .49, "mfu": .55,
            "peak_mib": 2048.0, **more}


def test_distillation(put):
    put("distill", [distilled(10_000.), distilled(8_000., streamed=True), distilled(9_000., gpus=1, sequences=2),
                    distilled(18_000., gpus=2, sequences=2), distilled(1., model="other", streamed=True, mfu=None)])
    header, *lines = [line for i, line in enumerate(cells(models.distill_gpu())) if i != 1]
    assert lines[0] == ["m", "1 x 64k", "1", "on device", "10000", "10.0 h", "50% / 1.0% / 49%", "55%", "2.0 GiB", ""]
    of = [dict(zip(header, line)) for line in lines]
    assert [line["compared"] for line in of] == ["", "1.25x the time of layers on the device", "",
                                                 "**2.00x** as fast as one GPU", ""]
    assert [(line["GPUs"], line["layers"]) for line in of[2:]] == [
        ("1", "on device"), ("2", "on device"), ("1", "streamed")]
    assert of[4]["MFU"] == "-"
    put("distill", [distilled(10_000.)])
    assert "compared" not in models.distill_gpu()


def tuned(ms, gpus=1, sequences=1, peak=4096., density=.1, **more):
    is_dense = density == 1
    return {"model": "llama-3.2-1b", "len_q": 32768, "sequences": sequences, "states_on_host": False, "gpus": gpus, "density": density, "implementation": "dense" if is_dense else "seer", "median_ms": ms,
            "parts": dict.fromkeys(models.STEP_PARTS, ms / 8), "tokens_per_s": 32768e3 * sequences / ms, "mfu": .3, "peak_mib": peak, **({} if is_dense else {"without_gates_ms": ms / 2}), **more}


def test_fine_tuning_by_several(put):
    """Steps of several windows and by several GPUs have a table of their own, once there is something to compare."""
    alone = [tuned(2000., density=1.), tuned(1000.)]
    put("finetune", alone)
    usual = models.finetune_gpu()
    assert [line[3:5] for line in cells(usual)[2:]] == [["2.00 s", ""], ["1.00 s **2.00x**", "0.56 s **3.56x**"]]
    assert models.finetune_gpus() == ""
    eight = [tuned(16000., sequences=8, density=1.), tuned(8000., sequences=8)]
    put("finetune", alone + eight)
    assert models.finetune_gpu() == usual and models.finetune_gpus() == ""
    put("finetune", [tuned(4200., 2, 8, 2048.)] + alone + eight)
    assert models.finetune_gpu() == usual
    header, _, one, two = cells(models.finetune_gpus().split("\n\n")[1])
    assert header[3:] == ["GPUs", "step", "against one GPU", "tokens/s", "MFU", "peak memory of a GPU", "less by", "masters and states of a GPU"]
    assert one == ["llama-3.2-1b", "8 x 32k", "90% sparse", "1", "8.00 s", "", "32768", "30%", "4.0 GiB", "", "13.8 GiB"]
    assert two == ["llama-3.2-1b", "8 x 32k", "90% sparse", "2", "4.20 s", "**1.90x**", "62415", "30%", "2.0 GiB", "2.0 GiB", "6.9 GiB"]


def test_training_in_python(put):
    def trained(task, gpus, rate):
        return {"task": task, "model": "m", "gpus": gpus, "len_q": 32768, "median_ms": 1e6 / rate, "tokens_per_s": rate, "peak_mib": 1024. * (3 - gpus), "losses": [12.5, 12.25], "grad_norms": [.00123, 1.5]}

    rows = [trained("finetune", 2, 950), trained("finetune", 1, 500), trained("gates", 2, 2100), trained("gates", 1, 1000)]
    put("python_training", rows, rivals={"transformers": "5.0"})
    text = models.python_training()
    header, _, *lines = cells(text)
    assert [line[1:6] for line in lines] == [["1", "1.00 s", "1000", "", "2.0 GiB"], ["2", "0.48 s", "2100", "**2.10x**", "1.0 GiB"], ["1", "2.00 s", "500", "", "2.0 GiB"], ["2", "1.05 s", "950", "**1.90x**", "1.0 GiB"]]
    assert header[6:] == ["losses of the steps", "norms of the gradient"] and lines[0][0].startswith("gates") and lines[0][6:] == ["12.500 / 12.250", "0.00123 / 1.50"]
    assert "transformers 5.0, " in text


def perplexities(own, dense=10.):
    rows = [{"method": "dense", "sparsity": 0., "perplexity": dense, "density": 1.}]
    return rows + [{"method": method, "sparsity": s, "perplexity": ppl + s, "density": 1 - s}
                   for method, ppl in (("oracle", 10.), ("seer", own), ("streaming", 13.), ("random", 20.))
                   for s in (.5, .7, .9)]


def test_quality(put):
    for text, dense in (("books", 10.), ("proofs", 5.)):
        put(f"ppl_{text}", perplexities(11., dense), results.CPU_QUALITY, threads=2)
    header, lines = lines_of(quality.quality())
    assert header[2:] == [f"{text} {s}%" for text in ("books", "proofs") for s in (50, 70, 90)]
    assert lines["dense"] == ["1", "10.00", "", "", "5.00", "", ""]
    assert lines["**learned gates**"] == [
        ".50 / .30 / .10", "11.50 (x1.150)", "11.70 (x1.170)", "11.90 (x1.190)",
        "11.50 (x2.300)", "11.70 (x2.340)", "11.90 (x2.380)"]
    assert [*lines][1] == "oracle (true map)" and lines["sink + sliding window"][3] == "13.90 (x1.390)"
    put("ppl_books", perplexities(11.) + [{**row, "method": "gate"} for row in perplexities(11.) if row["method"] == "seer"], results.CPU_QUALITY, threads=2)
    put("ppl_proofs", perplexities(11.) + [{**row, "method": "gate"} for row in perplexities(11.) if row["method"] == "seer"], results.CPU_QUALITY, threads=2)
    _, lines = lines_of(quality.quality())
    assert {"**gates with lookup heads**", "gates without lookup heads"} <= {*lines}


def three_ways(dense, methods=("seer", "streaming"), trained=(.9, .5)):
    """As `seer eval ppl --joint` writes them: gates 10 % above dense at 90 %, trained models a tenth or less of it."""
    def row(model, method, sparsity, ratio, **more):
        return {"model": model, "method": method, "sparsity": sparsity, "perplexity": dense * ratio, "vs_dense": ratio, "density": 1 - sparsity - .004,
                "documents": 3, "length": 32768, "vs_dense_error": .001, "nll": [math.log(dense * ratio)] * 3, **more}

    rows = [row("yarn", "dense", 0., 1.)]
    rows += [row("yarn", method, s, 1 + s / 9 * (2 if method == "streaming" else 1)) for method in methods for s in (.5, .7, .8, .9)]
    for at in trained:
        of = {"trained_rule": "nz_ratio", "trained_sparsity": at}
        rows.append(row(f"joint{at}", "dense", 0., 1.01, **of))
        rows += [row(f"joint{at}", "seer", s, 1 + at * s / 90, **of) for s in (.5, .7, .8, .9)]
    return rows


def test_three_ways(put):
    put("yarn_embedded_books", three_ways(20.), command="seer eval ppl --model /a/dense --joint /a/j,/b/k")
    put("yarn_smollm2_proofs", three_ways(2., methods=["seer"], trained=[.9]))
    text = yarn.yarn_headline()
    header, lines = lines_of(text)
    assert header == ["", "dense YaRN", "gates after YaRN, .5 / .7 / .8 / .9", "YaRN with SeerAttention, .5 / .7 / .8 / .9"]
    # .5 and .7 of the model trained at .5, .8 and .9 of that trained at .9.
    assert lines == {"embedded model, 7.6 M, books": ["20.00", "21.11 / 21.56 / 21.78 / 22.00", "20.06 / 20.08 / 20.16 / 20.18"],
                     "SmolLM2-135M, proofs": ["2.000", "2.111 / 2.156 / 2.178 / 2.200", "2.010 / 2.014 / 2.016 / 2.018"]}
    assert "Blocks computed: .50 / .30 / .20 / .10. Documents of 32768 tokens: 3 (embedded model, 7.6 M, books), 3 (SmolLM2-135M, proofs)." in text
    assert "`seer eval ppl --model dense --joint j,k`; [yarn_embedded_books.json](results/" in text
    books, proofs = (lines_of(table) for table in yarn.yarn().split("\n\n")[:2])
    assert books[0] == ["embedded model, 7.6 M, books", "dense", "50%", "70%", "80%", "90%", "of the gates' excess at 90%"] and proofs[0][0] == "SmolLM2-135M, proofs"
    assert [*books[1]] == ["dense YaRN", "gates after", "sink + window", "trained at 50% (joint0.5)", "trained at 90% (joint0.9)"] and [*proofs[1]] == ["dense YaRN", "gates after", "trained at 90% (joint0.9)"]
    assert books[1]["dense YaRN"] == ["20.00", "", "", "", "", ""]
    assert books[1]["gates after"] == ["", *(f"{ppl} (+{above} ± .10 %)" for ppl, above in (("21.11", "5.56"), ("21.56", "7.78"), ("21.78", "8.89"), ("22.00", "10.00"))), "1.00"]
    assert books[1]["trained at 90% (joint0.9)"] == ["20.20 (+1.00 ± .10 %)", *(f"{ppl} (+{above} ± .10 %)" for ppl, above in (("20.10", "0.50"), ("20.14", "0.70"), ("20.16", "0.80"), ("20.18", "0.90"))), ".09"]


def test_three_ways_with_lookup_heads(put):
    def halved(row):
        """What lookup heads make of it."""
        ratio = 1 + (row["vs_dense"] - 1) / 2
        return {**row, "vs_dense": ratio, "perplexity": 20 * ratio}

    def ways(**more):
        return [halved(row) if row["method"] == "seer" and row["model"] == "yarn" else row for row in three_ways(20., methods=["gate", "seer"], **more)]

    rows = ways()
    put("yarn_smollm2_books", rows + [{**halved(row), "model": row["model"] + "_lookup"} for row in rows if "trained_sparsity" in row])
    put("yarn_smollm2_seed2_books", [{key: value for key, value in row.items() if key != "model"} for row in ways(trained=[])])
    header, lines = lines_of(yarn.yarn_headline())
    assert lines == {"SmolLM2-135M, books": ["20.00", "21.11 / 21.56 / 21.78 / 22.00", "20.06 / 20.08 / 20.16 / 20.18"],
                     "the same, with lookup heads": ["", "20.56 / 20.78 / 20.89 / 21.00", "20.03 / 20.04 / 20.08 / 20.09"]}
    _, lines = lines_of(yarn.yarn())
    assert [*lines] == ["dense YaRN", "gates after", "gates after, with lookup heads", "trained at 50% (joint0.5)", "trained at 50% (joint0.5), with lookup heads",
                        "trained at 90% (joint0.9)", "trained at 90% (joint0.9), with lookup heads", "gates after, another seed", "gates after, with lookup heads, another seed"]
    # Shares of what gates of the same kind lose.
    assert [line[-1] for line in lines.values()] == ["", "1.00", "1.00", ".05", ".05", ".09", ".09", "1.00", "1.00"]


def test_learning_rates(put):
    for name, share in zip(yarn.RATES, (1., .75, 1., .5, .25)):
        for text in yarn.TEXTS:
            rows = three_ways(20., trained=[.9])
            for row in rows:  # one document more than elsewhere, which does not count
                if row["model"] != "yarn" and row["method"] == "seer":
                    row["nll"] = [math.log(20. * (1 + share * row["sparsity"] / 9))] * 3 + [9.] * (share == 1.)
                elif share == 1.:
                    row["nll"] = row["nll"] + [9.]
            put(f"yarn_{name}_{text}", rows)
    header, _, *lines = cells(yarn.yarn_rates())
    assert header[:6] == ["per cent above dense", "learning rate", "of gates", "gates had seen", "books: dense YaRN", "books: gates after, 90%"]
    assert [line[3:8] for line in lines] == [[tokens, "20.00", "+10.00", above, taken] for tokens, above, taken in
                                             (("33 M", "+10.00", "0%"), ("33 M", "+7.50", "25%"), ("52 M", "+10.00", "0%"), ("20 M", "+5.00", "50%"), ("20 M", "+2.50", "75%"))]
    assert "embedded model, 7.6 M: 3 documents of books, 3 documents of proofs. SmolLM2-135M: 3 documents of books" in yarn.yarn_rates()


def test_gradients_in_every_nth_step(put):
    for text in yarn.TEXTS:
        rows = three_ways(20., trained=[.9])
        joint = [{**row, "model": name, "vs_dense": 1 + (row["vs_dense"] - 1) * times, "vs_dense_error": .01} for name, times in (("joint90_every16", 3), ("joint90", 1), ("joint90_every2", 2))
                 for row in rows if "trained_sparsity" in row]
        put(f"yarn_embedded_every_{text}", [row for row in rows if "trained_sparsity" not in row] + joint)
    _, _, *lines = cells(yarn.yarn_every())
    first = float(lines[0][1].split()[0])
    assert [line[0] for line in lines] == ["1", "2", "16"] and [float(line[1].split()[0]) for line in lines] == pytest.approx([first, 2 * first, 3 * first], abs=.02)
    assert [float(line[2]) for line in lines] == pytest.approx([float(lines[0][2]) * times for times in (1, 2, 3)], abs=.02)


def test_lengths_and_answers_at_32k(put):
    assert yarn.lengths() == planted.planted_long() == ""
    put("lengths_smollm2_books", [{"method": method, "sparsity": s, "length": length, "density": 1 - s, "perplexity": 20 * ratio, "vs_dense": ratio}
                                  for length in (2048, 32768) for method, s, ratio in (("dense", 0., 1.), ("gate", .9, 1.05), ("seer", .9, 1.03)) if (method, length) != ("gate", 2048)])
    header, *lines = [line for i, line in enumerate(cells(yarn.lengths())) if i != 1]
    assert header == ["", "blocks chosen by", "density", "2k", "32k"] and lines == [
        ["SmolLM2-135M, books", "dense", "1.00", "20.00", "20.00"], ["SmolLM2-135M, books", "gates with lookup heads", ".10", "20.60 (+3.00 %)", "20.60 (+3.00 %)"],
        ["SmolLM2-135M, books", "gates alone", ".10", "-", "21.00 (+5.00 %)"]]
    def asked(method, sparsity, *found):
        return {"method": method, "sparsity": sparsity, "density": 1 - sparsity, "length": 8192, "questions": 8, "windows": 2, "cells": list(found),
                **{f"{name}{error}": .5 for name in ("top1", "exact", "loss") for error in ("", "_error")}}

    def cell(top1, questions, **place):
        return {"top1": top1, "questions": questions, **place}

    near, far = {"distance": [1024, 4096]}, {"distance": [4096, 8192]}
    name = "SmolLM2-135M, YaRN with SeerAttention at 90%"
    for what, far_away in (("facts", .5), ("copies", .25)):
        put(f"{what}_smollm2_joint90", [asked("dense", 0., cell(1., 1, **near), cell(.5, 3, **near), cell(far_away, 4, **far)), asked("gate", .5, cell(1., 4, **near)), asked("gate", .9, cell(.125, 4, **near))])
    assert "needle" not in planted.planted_long()
    by_all, by_distance = (cells(part) for part in planted.planted_long().split("By distance, tokens right:"))
    assert [line[:3] for line in by_all[2:]] == [[name, "dense", "1"], [name, "gates without lookup heads", ".50 / .10"]]
    assert by_distance[0] == ["90% sparse", "blocks chosen by", "facts, 1k to 4k away", "facts, 4k to 8k away", "copies, 1k to 4k away", "copies, 4k to 8k away"]
    # Cells of one distance together by their questions; of the sparsities the highest.
    assert by_distance[2:] == [[name, "dense", ".62", ".50", ".62", ".25"], [name, "gates without lookup heads", ".12", "-", ".12", "-"]]
    put("needle_smollm2_joint90", [asked("dense", 0., *(cell(depth / 100, 1, depth=depth) for depth in (0., 20., 50., 100.))), asked("seer", .9, cell(.5, 1, depth=50.))])
    header, _, *lines = cells(planted.planted_long().split("haystack")[1])
    assert header[2:] == ["8k tokens, 0 to 33 % deep", "8k tokens, 34 to 66 % deep", "8k tokens, 67 to 100 % deep"]
    assert lines == [[name, "dense", ".10", ".50", "1.00"], [name, "**learned gates**", "-", ".50", "-"]]


def test_published(put):
    rows = [{"text": "A", "method": "dense", "sparsity": 0., "perplexity": 2.}]
    rows += [{"text": "A", "method": method, "sparsity": s, "perplexity": 2 * (1 + s * by)} for method, by in (("gates after YaRN", .1), ("YaRN with SeerAttention", .01)) for s in (.5, .9)]
    put("published", rows, chip=".", model="M", source="a paper, section 1")
    text = yarn.published()
    assert cells(text)[0] == ["published", "dense YaRN", "gates after YaRN, .5 / .9", "YaRN with SeerAttention, .5 / .9"]
    assert cells(text)[2:] == [["M: A", "2.00", "2.10 / 2.18", "2.01 / 2.02"], ["above dense, %", "", "+5.00 / +9.00", "+0.50 / +0.90"]]
    assert text.endswith("a paper, section 1; [published.json](results/published.json)")


def test_planted(put):
    def row(method, sparsity, top1, **more):
        return {"method": method, "sparsity": sparsity, "density": 1 - sparsity, "questions": 8, "windows": 2, "top1": top1, "top1_error": .02,
                "exact": top1 / 2, "exact_error": None, "loss": 10.25, "loss_error": .5, **more}

    rows = [row("dense", 0., 1.), row("seer", .7, .4), row("seer", .9, .1)]
    for what in ("facts", "copies"):
        put(f"{what}_smollm2", rows, command=f"seer eval {what} --model /a/SmolLM2 --json x.json")
    put("facts_embedded", rows, results.CPU_QUALITY, threads=2)  # not without copies
    text = planted.planted()
    _, dense, gates = cells(text)[:1] + cells(text)[2:]
    assert dense == ["SmolLM2-135M", "dense", "1", "1.00 ± .02", ".50 ± -", "1.00 ± .02", "10.25 ± .50"]
    assert gates == ["SmolLM2-135M", "**learned gates**", ".30 / .10", ".40 ± .02 / .10 ± .02", ".20 ± - / .05 ± -", ".40 ± .02 / .10 ± .02",
                     "10.25 ± .50 / 10.25 ± .50"]
    assert "8 questions in 2 windows, 8 passages. NVIDIA H200" in text
    assert "`seer eval copies --model SmolLM2`; [copies_smollm2.json](results/nvidia-h200/copies_smollm2.json)" in text
    put("copies_embedded", rows, results.CPU_QUALITY, threads=2)
    assert [line[0] for line in cells(planted.planted())[2:]] == ["embedded model, 7.6 M"] * 2 + ["SmolLM2-135M"] * 2


def put_methods(put, values, suffix="", measured=methods.MEASURED):
    """values: {(method, sparsity): (facts, copies, books, proofs)}, errors a tenth of them or of what is above dense."""
    for i, (file, field) in enumerate(measured.values()):
        rows = [{"method": method, "sparsity": s, "density": 1 - s, "perplexity": 10 * of[i], "questions": 8, "documents": 3, "length": 8192,
                 field: of[i], f"{field}_error": abs(of[i] - (field == "vs_dense")) / 10} for (method, s), of in values.items()]
        put(f"methods_{file.format('smollm2')}{suffix}", rows, command=f"seer eval --data /a/{i}")


def test_methods(put):
    values = {("dense", 0.): (.8, .9, 1., 1.), ("quest", .5): (.5, .6, 1.02, 1.2), ("quest", .9): (.1, .4, 1.5, 2.), ("seer", .5): (.8, .9, 1.005, .99),
              ("seer", .9): (.7, .35, 1.1, 1.3), ("duo", .5): (.6, .5, 1.01, 1.3), ("duo", .9): (.2, .3, 1.4, 1.2), ("oracle", .5): (.9, .9, 1., 1.), ("oracle", .9): (.9, .9, 1., 1.)}
    put_methods(put, values)
    text = methods.methods()
    header, lines = lines_of(text)
    assert header[1:] == ["density", *methods.MEASURED]
    assert [*lines] == ["dense", "oracle (true map)", "**gates with lookup heads**", "kinds of heads (as DuoAttention)", "bounds of keys (Quest)", "rank of gates with lookup heads"]
    assert lines["dense"] == ["1", ".80 ± .08", ".90 ± .09", "perplexity 10.00", "perplexity 10.00"]
    assert lines["**gates with lookup heads**"] == [".50 / .10", ".80 ± .08 / .70 ± .07", ".90 ± .09 / .35 ± .03", "+0.50 ± .05 / +10 ± 1", "-1.0 ± .1 / +30 ± 3"]
    # Before duo in facts; of copies one rival has more; of perplexity less is better.
    assert lines["rank of gates with lookup heads"] == ["", "1 (+.20) / 1 (+.50)", "1 (+.30) / 2 (-.05)", "1 (+0.5) / 1 (+30.0)", "1 (+21.0) / 2 (-10.0)"]
    assert "8 questions, 8 passages, 3 documents of books, 3 documents of proofs, 8,192 tokens each." in text and "the 2 methods" in text
    assert "`seer eval --data 2`; [methods_ppl_smollm2_books.json](results/nvidia-h200/methods_ppl_smollm2_books.json), [methods_ppl_smollm2_proofs.json]" in text
    put_methods(put, values, measured=methods.NEEDLE)
    header, lines = lines_of(methods.methods())
    assert header[-1] == "needle, digits right" and [lines[name][-1] for name in ("dense", "rank of gates with lookup heads")] == [".80 ± .08", "1 (+.20) / 1 (+.50)"]
    assert "3 documents of proofs, 8 needles, 8,192 tokens each." in methods.methods() and "[methods_needle_smollm2.json]" in methods.methods()
    put_methods(put, {**values, ("gate", .5): (.5, .8, 1.1, 1.), ("gate", .9): (.15, .2, 1.1, 1.)}, "_forced")
    _, lines = lines_of(methods.methods_forced())
    assert lines["rank of gates without lookup heads"][1] == "2 (-.10) / 2 (-.05)"


def test_needle_by_depth(put):
    def row(method, length, *shares, sparsity=.9):
        cells = [{"depth": depth, "top1": share, "questions": 4} for depth, share in zip((0., 50., 100.), shares)]
        return {"method": method, "sparsity": sparsity, "length": length, "density": .125, "questions": 12, "top1": sum(shares) / 3, "top1_error": .01, "cells": cells}

    put("needle_smollm2", [row("seer", 2048, .5, .5, .5), row("dense", 2048, .2, .3, .4, sparsity=0.), row("seer", 8192, 0, 0, 0)])
    put("methods_needle_smollm2", [row("quest", 8192, .1, .2, .3), row("quest", 8192, 1, 1, 1, sparsity=.5), row("seer", 8192, .4, 1, .7), row("dense", 8192, .9, .9, .9, sparsity=0.)])
    text = planted.needle()
    header, _, *lines = cells(text)
    assert header == ["tokens, 90% sparse", "blocks chosen by", "density", "digits right", "0 % deep", "50 % deep", "100 % deep"]
    # Dense attention first, then those that find most; of a length that both files have, the row of all methods.
    assert lines == [["2k", "dense", "1", ".30 ± .01", ".20", ".30", ".40"], ["2k", "**gates with lookup heads**", ".12", ".50 ± .01", ".50", ".50", ".50"],
                     ["8k", "dense", "1", ".90 ± .01", ".90", ".90", ".90"], ["8k", "**gates with lookup heads**", ".12", ".70 ± .01", ".40", "1.00", ".70"],
                     ["8k", "bounds of keys (Quest)", ".12", ".20 ± .01", ".10", ".20", ".30"]]
    assert "SmolLM2-135M; 12 needles of each length." in text and "[methods_needle_smollm2.json]" in text


def test_a_run_of_a_real_model(put):
    row = lambda method, sparsity, perplexity: {"method": method, "sparsity": sparsity, "density": 1 - sparsity, "perplexity": perplexity, "vs_dense": perplexity / 8, "documents": 2, "length": 8192}
    put("run_smollm2", [row("dense", 0., 8.), row("seer", .9, 9.), row("seer", .5, 8.), row("random", .5, 16.), row("random", .9, 80.)])
    text = quality.run_gpu()
    assert cells(text)[0] == ["blocks chosen by", "density", "50% sparse", "90% sparse"]
    assert cells(text)[2:] == [["dense", "1", "8.000", ""], ["**gates with lookup heads**", ".50 / .10", "8.000 (x1.000)", "9.000 (x1.125)"], ["random + diagonal", ".50 / .10", "16.000 (x2.000)", "80.000 (x10.000)"]]
    assert "2 windows of 8,192 tokens" in text


def setting(name, value, method, sparsity, facts, rule="nz_ratio", strength=.1):
    of = lambda score: {"score": score, "error": abs(score - 1) / 10, "density": .25}
    return {"setting": name, "value": value, "method": method, "sparsity": sparsity, "rule": rule, "strength": strength,
            "facts": of(facts), "copies": of(.4), "books": of(1.2), "proofs": of(1.004)}


def test_settings_of_gates(put):
    put("gate_settings_smollm2", [setting("tokens", 1e6, "dense", 0., .75), setting("tokens", 52e6, "seer", .9, .7), setting("tokens", 1e6, "gate", .9, .1), setting("tokens", 52e6, "gate", .9, .2),
                                  setting("tokens", 52e6, "gate", .7, .3), setting("rules", 2e7, "seer", None, .5, "top_p", .8), setting("rules", 52e6, "seer", .9, .6),
                                  setting("lookups", .1, "seer", .9, .7), setting("lookups", .1, "gate", .9, .2), setting("lookups", .05, "seer", .9, .6)])
    header, *lines = [line for i, line in enumerate(cells(gate_settings.gates_by_tokens())) if i != 1]
    assert header[0] == "tokens, 90% sparse" and [line[:3] for line in lines] == [
        ["1 M", "gates without lookup heads", ".10 ± .09"], ["52 M", "gates without lookup heads", ".20 ± .08"], ["52 M", "**gates with lookup heads**", ".70 ± .03"], ["", "dense", ".75 ± .03"]]
    assert lines[0][3:] == [".40 ± .06", "+20 ± 2", "+0.40 ± .04"] and lines[-1][4:] == ["0", "0"]
    _, lines = lines_of(gate_settings.selection_rules())
    assert lines == {"20 M": ["`top_p`, 0.8", ".50 ± .05 at .25", ".40 ± .06 at .25", "+20 ± 2 at .25", "+0.40 ± .04 at .25"], "52 M": ["`nz_ratio`, 90% sparse", ".60 ± .04 at .25", *lines["20 M"][2:]]}
    assert [(line[0], line[2]) for line in cells(gate_settings.lookup_shares())[2:]] == [("none", ".20 ± .08"), ("5%", ".60 ± .04"), ("10%", ".70 ± .03")]


def test_ablations(put):
    put("gate_ablations_smollm2", [setting("rank", 16, "seer", .9, .7), setting("pooling", "Qavg_Kavg", "seer", .9, .1), setting("block", 128, "seer", .7, .2), setting("default", None, "seer", .9, .3),
                                   setting("rank", 16, "gate", .9, .1), setting("default", None, "dense", 0., .8)])
    lines = cells(gate_settings.ablations())
    assert lines[0][:3] == ["trained with", "sparsity", "density"]
    assert [line[:4] for line in lines[2:]] == [["`--block 128`", "70%", ".25", ".20 ± .08"], ["**all as by default**", "90%", ".25", ".30 ± .07"],
                                                ["`--gate-type Qavg_Kavg`", "90%", ".25", ".10 ± .09"], ["lookup heads of rank 16", "90%", ".25", ".70 ± .03"]]
    put("gate_ablations_embedded", [setting("block", 128, "seer", .8, .1), setting("block", 32, "seer", .8, .2), setting("default", None, "seer", .8, .3), setting("default", None, "dense", 0., .8)], results.CPU_QUALITY, threads=2)
    text = gate_settings.ablations_embedded()
    assert [line[0] for line in cells(text)[2:]] == ["**all as by default**", "`--block 32`", "`--block 128`"] and ", 2 threads, " in text


def test_gates_without_rope(put):
    rows = [{"method": "dense", "length": length, "perplexity": 20., "vs_dense": 1., "density": 1., "sparsity": 0.} for length in (1024, 2048)]
    rows += [{"method": "seer", "gates": name, "length": length, "vs_dense": ratio, "vs_dense_error": .002, "density": .3, "sparsity": .7, "documents": 4, "trained_tokens": 4e6, "trained_length": 1024}
             for name, ratio in (("with RoPE", 1.01), ("without RoPE", 1.5)) for length in (1024, 2048)]
    put("gate_rope", rows, results.CPU_QUALITY, threads=2, settings={"model": "m"})
    text = gate_settings.gate_rope()
    assert cells(text)[2:] == [["dense", "20.00", "20.00"], ["gates with RoPE", *["+1.0 ± .2 % at .30"] * 2], ["gates without RoPE", *["+50.0 ± .2 % at .30"] * 2]]
    assert "m, 70% sparse, 4 documents; gates saw 4 M tokens, 1k at a time." in text


def test_map_alone(put):
    def row(name, ms, head_dim, map_heads=None, **more):
        return {"implementation": name, "heads_q": 32, "heads_kv": 8, "head_dim": head_dim, "len_q": 32768, "len_k": 32768, "dtype": "bf16", "median_ms": ms, "map_heads": map_heads,
                "tflops": 100., "status": "ok", **more}

    put("pooled_attn", [row("seer", 8., 256, "q"), row("seer", 5., 64, "q"), row("seer", 10., 128, "q"), row("seer", 9., 128, "kv"), row("seer, map alone", 6., 128, "q"), row("torch cuDNN", 20., 128)])
    lines = cells(operations.gpu_map())[2:]
    assert [line[2] for line in lines] == ["128", "64", "256"]
    assert lines[0] == ["32k", "32/8", "128", "10.00 ms", "100", "-", "**2.00x**", "6.00 ms (0.60)"] and lines[1][-1] == "-"


@pytest.mark.parametrize("name", ["methods", "needle", "gates_by_tokens", "ablations", "planted", "choosing", "gate_gpu", "prefill_gpu", "distill_gpu", "yarn", "yarn_headline", "yarn_every"])
def test_a_missing_file_is_one_line(put, name):
    with pytest.raises(SystemExit, match=rf'README.md: table "{name}" needs results/nvidia-h200/\w+.json, .* missing$'):
        result_tables.table(name)


def test_a_table_that_is_not_there():
    with pytest.raises(SystemExit, match='no table "none"; there are headline, quality, '):
        result_tables.table("none")


def test_pages_stay_where_a_file_is_missing(put, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["result_tables.py"])
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    readme.write_text("<!-- table: gate_gpu -->\n<!-- end -->\n")
    page.write_text("<!-- table: gate_gpu -->\n<!-- end -->\n<!-- table: prefill_gpu -->\nold\n<!-- end -->\n")
    put("attn_gate", [step("pool q", .1)])
    before = readme.read_text(), page.read_text()
    with pytest.raises(SystemExit, match="docs/results.md: .* needs results/nvidia-h200/prefill.json"):
        result_tables.main()
    assert (readme.read_text(), page.read_text()) == before
    put("prefill", PROMPTS)
    result_tables.main()
    assert "](results/" in readme.read_text() and "](../results/" in page.read_text() and "old" not in page.read_text()
