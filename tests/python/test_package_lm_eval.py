"""python -m seer.lm_eval on tasks over local files: the harness's own numbers at density 1, and below it what a model with gates gives
each text alone."""
import functools
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch
import transformers

import seer
from conftest import BUILD, PACKAGE_PATH, ROOT

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from seer import lm_eval as harness  # noqa: E402

CHARACTERS = (1500, 450, 20, 900, 700)  # of the texts
TASKS = {
    "choice": dict(output_type="multiple_choice", doc_to_text="{{text}}", doc_to_target="answer", doc_to_choice="{{choices}}", target_delimiter="",
                   metric_list=[dict(metric="acc"), dict(metric="acc_norm")]),
    "written": dict(output_type="generate_until", doc_to_text="{{text}}", doc_to_target="x", metric_list=[dict(metric="exact_match")],
                    generation_kwargs=dict(until=["never"], max_gen_toks=5, do_sample=False)),
    "rolling": dict(output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}", metric_list=[dict(metric="word_perplexity")]),
}
SPARSE = dict(rule="nz_ratio", sparsity=0.7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random model with the embedded one's tokenizer, its gates, and the tasks."""
    made = tmp_path_factory.mktemp("lm_eval")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=8192, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, initializer_range=0.2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(made)
    for path in (ROOT / "assets" / "reference").glob("tokenizer*"):
        (made / path.name).write_text(path.read_text())
    seer.attach(model, seer.GateConfig(block_size=16), 0.5)
    for layer in model.seer.layers:
        torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
    seer.save_gates(model, made / "gates")
    text, at, rows = " ".join((BUILD / "default_text.txt").read_text()[:10_000].split()), 0, []
    for n in CHARACTERS:
        rows.append(dict(text=text[at:at + n].rstrip(), choices=[text[at + n:at + n + 9], " zebra", " a"], answer=len(rows) % 3))
        at += n + 9
    (made / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in TASKS:
        (made / f"{name}.yaml").write_text(json.dumps(task(name, made)))
    return made


@pytest.fixture(autouse=True)
def local(monkeypatch, tmp_path_factory):
    """Data of this run, and no list of all of the harness's tasks, which takes it seconds."""
    import datasets
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", functools.partial(TaskManager, include_defaults=False))


def task(name, folder):
    return dict(task=name, dataset_path="json", dataset_kwargs=dict(data_files=dict(test=str(folder / "docs.jsonl"))), test_split="test",
                metadata=dict(version=1), **TASKS[name])


def model_of(cls, folder, **settings):
    return cls(str(folder), device="cpu", dtype="float32", max_length=150, **settings)


def evaluated(model, folder):
    return lm_eval.simple_evaluate(model, tasks=[task(name, folder) for name in TASKS], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0)


def responses(results):
    """By task: what the model gave for each document."""
    return {name: [[x[0] for x in doc["resps"]] for doc in results["samples"][name]] for name in TASKS}


def same_responses(got, want):
    assert got["written"] == want["written"]
    for name in ("choice", "rolling"):
        for a, b in zip(got[name], want[name], strict=True):
            a, b = ([x if isinstance(x, (list, tuple)) else [x] for x in of] for of in (a, b))
            assert [x[1:] for x in a] == [x[1:] for x in b]
            assert [x[0] for x in a] == pytest.approx([x[0] for x in b], rel=1e-5, abs=1e-3)


def test_density_one_is_the_harness(folder):
    want = evaluated(model_of(HFLM, folder, batch_size=1), folder)
    dense = evaluated(model_of(harness.SeerLM, folder, sparsity=0, batch_size=3), folder)
    same_responses(responses(dense), responses(want))
    lm = model_of(harness.SeerLM, folder, gates=str(folder / "gates"), rule="row_budget", strength=10000, batch_size="auto", max_batch_size=2)
    got = evaluated(lm, folder)
    assert lm.density == 1 and lm.visible > 0
    same_responses(responses(got), responses(want))
    for name, metrics in want["results"].items():
        numbers = {key: value for key, value in metrics.items() if isinstance(value, float)}
        assert {key: got["results"][name][key] for key in numbers} == pytest.approx(numbers, rel=1e-4)


@torch.no_grad()
def test_sparse_requests_are_those_of_single_texts(folder):
    """Batches with padding, contexts that are cut, several windows of a text: by hand, one text after another."""
    lm = model_of(harness.SeerLM, folder, gates=str(folder / "gates"), density=0.3, batch_size=3)
    results = evaluated(lm, folder)
    assert lm.density < 0.5 and results["config"]["density"] == lm.density and results["config"]["seer"]["rule"] == "nz_ratio"
    model = seer.attach(transformers.AutoModelForCausalLM.from_pretrained(folder), folder / "gates", **SPARSE)
    encode = lambda text: lm.tok_encode(text)

    def logprob(context, continuation):
        ids = (context + continuation)[-151:]
        logits = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0, -len(continuation):].log_softmax(-1)
        want = torch.tensor(continuation)
        return logits.gather(1, want[:, None]).sum().item(), bool((logits.argmax(-1) == want).all())

    want = {name: [] for name in TASKS}
    for doc in map(json.loads, (folder / "docs.jsonl").read_text().splitlines()):
        context = encode(doc["text"])
        want["choice"].append([logprob(context, encode(doc["text"] + choice)[len(context):]) for choice in doc["choices"]])
        prompt = torch.tensor([context[-145:]])
        made = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False, pad_token_id=1)
        want["written"].append([lm.tok_decode(made[0, prompt.shape[1]:].tolist())])
        windows = [context[at:at + 150] for at in range(0, len(context), 150)]
        before, total = [lm.prefix_token_id], 0
        for window in windows:
            total += logprob((before + context[:0])[-151 + len(window):], window)[0]
            before = (before + window)[-150:]
        want["rolling"].append([total])
    lengths = [len(encode(doc["text"])) for doc in map(json.loads, (folder / "docs.jsonl").read_text().splitlines())]
    assert max(lengths) > 300 and len(set(lengths)) == len(lengths)
    same_responses(responses(results), want)


SINGLE, SEVERAL = re.findall(r"^python -m seer\.lm_eval (.*)$", (ROOT / "docs" / "python.md").read_text(), flags=re.M)


def command(text, folder, out="", *more):
    """A command of the documentation, on the model and the tasks of these tests."""
    tasks = ",".join(str(folder / f"{name}.yaml") for name in TASKS)
    for name, value in (("FOLDER", f"{folder},dtype=float32,max_length=150"), ("GATES", folder / "gates"), ("TASKS", tasks), ("OUT", out)):
        text = text.replace(name, str(value))
    harness.main([*shlex.split(text), "--device", "cpu", *more])


def test_dense_and_sparse_side_by_side(folder, tmp_path, capsys):
    command(SEVERAL, folder, tmp_path)
    table = capsys.readouterr().out
    kept = json.loads((tmp_path / "comparison.json").read_text())
    labels = ["dense", "sparsity 0.5", "sparsity 0.9"]
    runs = {label: json.loads((tmp_path / f"{label.replace(' ', '_')}.json").read_text()) for label in labels}
    assert len(list(tmp_path.iterdir())) == 4 and "samples" not in runs["dense"]
    densities = [kept["settings"][label]["density"] for label in labels]
    assert list(kept["settings"]) == labels and densities[0] == 1 > densities[1] > densities[2]
    rows = {(row["task"], row["metric"]): row["values"] for row in kept["rows"]}
    assert set(rows) == {("choice", "acc"), ("choice", "acc_norm"), ("written", "exact_match"), ("rolling", "word_perplexity")}
    for (name, metric), values in rows.items():
        value = {label: run["results"][name][f"{metric},none"] for label, run in runs.items()}
        assert {label: cell["value"] for label, cell in values.items()} == value
        assert all(values[label]["difference"] == value[label] - value["dense"] for label in labels[1:])
    assert all(rows["rolling", "word_perplexity"][label]["difference_stderr"] > 0 for label in labels[1:])
    changed = r"\| [\d.]+ \| [+-][\d.]+ ± [\d.]+ "
    assert re.search(rf"\| rolling \| word_perplexity \| ↓ \| [\d.]+ {changed}{changed}\|", table)
    assert f"| dense | sparsity 0.5 ({densities[1]:.3f} of the blocks) | difference |" in table


def test_the_harness_command(folder, capsys):
    command(SINGLE, folder, "", "--limit", "2")
    assert re.search(r"\|choice *\| *1\|none *\| *0\|acc *\|↑", capsys.readouterr().out)


def test_standard_error_of_differences():
    """Of means: that of the paired differences. Of other numbers: near it where they are means in disguise."""
    draw = torch.Generator().manual_seed(1)
    a = torch.rand(200, generator=draw)
    b = a + 0.1 * torch.rand(200, generator=draw)
    docs = lambda x, extra: [dict(doc_id=i, prompt_hash=str(i), filter="none", m=v) for i, v in enumerate((x + extra).tolist())]
    first, other = ({"samples": {"t": docs(x, 0), "u": docs(x, 1)}, "group_subtasks": {"g": ["t", "u"]}, "n-samples": {
        name: {"effective": 200} for name in "tu"}} for x in (a, b))

    class Task:
        def __init__(self, aggregate):
            self.aggregation = lambda: {"m": aggregate}

    exact, drawn = Task(harness.mean), Task(lambda x: sum(x) / len(x))
    error = lambda name, of: harness.paired_stderr(first, other, name, "m", "none", of)
    want = (b - a).std().item() / 200 ** 0.5
    assert error("t", {"t": exact}) == pytest.approx(want)
    assert error("t", {"t": drawn}) == pytest.approx(want, rel=0.1)
    assert error("g", {"t": exact, "u": exact}) == pytest.approx(want / 2 ** 0.5, rel=1e-3)
    other["samples"]["t"][3]["prompt_hash"] = "another"
    with pytest.raises(ValueError, match="the documents of t differ from setting to setting"):
        error("t", {"t": exact})


def test_what_is_refused(folder, capsys):
    for settings, message in ((dict(), "want sparsity=, density= or strength="), (dict(sparsity=0.5), "want gates=FOLDER"),
                              (dict(sparsity=0.5, density=0.5, gates="gates"), "want one of them"),
                              (dict(sparsity=0, strength=0.5), "strength 0.5 and a sparsity or density are given"),
                              (dict(gates=str(folder / "gates"), strength=5), "the rule nz_ratio takes sparsity"),
                              (dict(gates=str(folder / "nowhere"), sparsity=0.5), "a gate's folder holds config.json")):
        with pytest.raises(ValueError, match=message):
            model_of(harness.SeerLM, folder, **settings)
    with pytest.raises(SystemExit, match="error: --output_path is a.json, want a folder"):
        command(SEVERAL, folder, "a.json")
    with pytest.raises(SystemExit, match="error: --wandb_args does not go with --sparsity"):
        command(SEVERAL, folder, "OUT", "--wandb_args", "project=a")
    with pytest.raises(SystemExit, match="error: sparsity is among --model_args, and --sparsity has a list"):
        command(SEVERAL.replace("GATES", "GATES,sparsity=0.9"), folder, "OUT")
    with pytest.raises(SystemExit):
        command(SEVERAL.replace("dense,0.5", "a"), folder, "OUT")
    assert "'a,0.9' is no list of numbers" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="a gate's folder holds"):
        command(SEVERAL.replace("GATES", str(folder / "nowhere")), folder, "OUT")
    assert "seer.lm_eval: dense" not in capsys.readouterr().err, "refused before anything is measured"


def test_without_the_harness():
    """One line that says what to install."""
    for program in ("import runpy; runpy.run_module('seer.lm_eval', run_name='__main__')", "import seer.lm_eval"):
        run = subprocess.run([sys.executable, "-c", f"import sys; sys.modules['lm_eval'] = None; {program}"], capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD)})
        *before, last = run.stderr.splitlines()
        assert run.returncode == 1 and re.search(r"seer\.lm_eval: lm_eval.* is missing: pip install 'lm-eval\[hf\]'", last)
        assert bool(before) == (program == "import seer.lm_eval")  # a traceback
