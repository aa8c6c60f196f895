"""Figures of training, of several GPUs and of models of transformers, in sentences: as test_figures.py."""
import sys

import pytest

from conftest import ROOT
from test_figures import assert_in, load, one

sys.path[:0] = [str(ROOT / "tools")]
from tables import models  # noqa: E402


def step_of_fine_tuning():
    rows = [row for row in load("finetune")["rows"] if (row["model"], row["len_q"]) == ("llama-3.2-1b", 131072)]
    dense, sparse = ([row for row in rows if (row["density"] >= 1) == is_dense] for is_dense in (True, False))
    return f"at 128k is {dense[0]['median_ms'] / min(sparse, key=lambda row: row['density'])['median_ms']:.1f} times faster than with dense attention"


def step_without_map():
    rows = [row for row in load("finetune")["rows"] if (row["model"], row["len_q"]) == ("llama-3.2-1b", 131072)]
    dense, sparse = max(rows, key=lambda row: row["density"]), min(rows, key=lambda row: row["density"])
    parts, whole = sparse["parts_without_gates"], sparse["without_gates_ms"]
    return (f"takes {whole / 1e3:.2f} s, of which sparse attention is {(parts['attention_forward'] + parts['attention_backward']) / 1e3:.2f} s, products, loss and the rest "
            f"{(parts['products'] + parts['loss'] + parts['rest']) / 1e3:.2f} s, so {dense['median_ms'] / whole:.1f}x is the most")


def of_two_gpus(task):
    """(times as fast as one, GiB less on each)"""
    one_gpu, two = (one(load("python_training")["rows"], task=task, gpus=gpus) for gpus in (1, 2))
    return two["tokens_per_s"] / one_gpu["tokens_per_s"], (one_gpu["peak_mib"] - two["peak_mib"]) / 1024


def tuned_by_two(density):
    """(times as fast as one, GiB less on each)"""
    one_gpu, two = (one(load("finetune")["rows"], sequences=8, density=density, gpus=gpus) for gpus in (1, 2))
    return one_gpu["median_ms"] / two["median_ms"], (one_gpu["peak_mib"] - two["peak_mib"]) / 1024


def tuning():
    (dense, less), (sparse, less_sparse) = tuned_by_two(1), tuned_by_two(.1)
    states = 6 * models.WEIGHTS["llama-3.2-1b"] / 2 ** 30
    assert dense > 1.9 and sparse > 1.9 and less == pytest.approx(states, rel=.01) and less_sparse == pytest.approx(states, rel=.01)
    return f"Two GPUs are {dense:.2f} times as fast as one with dense attention, {sparse:.2f} times at 90 % sparsity, and each needs {less:.1f} GiB less: the half of masters and states"


def apart(name):
    """The largest difference of a figure of steps by two processes from that by one, in per cent."""
    pairs = [[one(load("python_training")["rows"], task=task, gpus=gpus)[name] for gpus in (1, 2)] for task in ("gates", "finetune")]
    return max(abs(by_two / by_one - 1) for alone, shared in pairs for by_one, by_two in zip(alone, shared, strict=True)) * 100


def in_python():
    times, = {f"{of_two_gpus(task)[0]:.1f}" for task in ("gates", "finetune")}
    return times


def two_gpus():
    both, single = (one(load("distill")["rows"], model="llama-3.1-8b", sequences=2, gpus=gpus)["tokens_per_s"] for gpus in (2, 1))
    assert max(row.get("gpus", 1) for name in ("distill", "finetune", "python_training") for row in load(name)["rows"]) == 2
    return f"Two H200s, the most that was tried, distil {both / single:.2f} times as fast as one and fine-tune {tuned_by_two(.1)[0]:.2f} times; training in Python under FSDP2 is {in_python()} times as fast"


def python():
    gates, weights = (of_two_gpus(task)[1] for task in ("gates", "finetune"))
    return f"Two H200s with FSDP2 were {in_python()} times as fast as one, with {gates:.1f} GiB less on each where gates alone learn and {weights:.1f} GiB less where all weights do"


def long_prefill():
    attached = lambda name: one(load("attach")["rows"], len_q=131072, implementation=name)
    assert all(row["attached_ms"] <= 1.03 * row["operations_ms"] for row in load("attach")["rows"] if row["len_q"] >= 32768 and "attached_ms" in row)
    added = [attached(f"seer, {s}%") for s in (50, 90)]
    adds = [f"{100 * (row['attached_ms'] / row['operations_ms'] - 1):.1f} %" for row in added]
    times = [attached(f"sdpa, {name}")["median_ms"] / added[1]["median_ms"] for name in ("cuDNN", "FlashAttention-2")]
    return (f"it is {adds[0]} at 50 % and {adds[1]} at 90 %, and the whole prefill at 90 % is {times[0]:.1f} times as fast as with cuDNN, "
            f"{times[1]:.1f} times as fast as with FlashAttention-2")


SENTENCES = [
    ("README.md", two_gpus), ("README.md", step_of_fine_tuning),
    ("docs/results.md", step_without_map), ("docs/results.md", tuning), ("docs/results.md", long_prefill),
    ("docs/results.md", lambda: "Two GPUs are {:.2f} times as fast as one with the model frozen, {:.2f} times with all weights".format(*(of_two_gpus(task)[0] for task in ("gates", "finetune")))),
    ("docs/results.md", lambda: f"Losses, which five steps on random tokens hardly move, differ by up to {apart('losses'):.2f} %, norms of the gradient by up to {apart('grad_norms'):.2f} %"),
    ("docs/long_context.md", lambda: f"Two are {tuned_by_two(.1)[0]:.2f} times as fast as one at 32k"),
    ("docs/python.md", python),
]


@pytest.mark.parametrize("page, sentence", SENTENCES)
def test_figures(page, sentence):
    assert_in(page, sentence())
