"""Small random models of every supported family: our program against transformers."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from model_families import MODELS, create, load, token_ids

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SEER_BUILD", ROOT / "build"))
DRIVER = BUILD / "model_driver"

F32_BOUND = 1e-4
# In bf16 the bound is transformers' own error: the distance of its bf16 logits from its f32 logits of the
# same weights. Ours (which round once less in RMSNorm) may be this many times as far from the latter.
BF16_RMS, BF16_LARGEST = 1.1, 1.5


def drive(verb, folder, ids, out, *flags):
    ids_file = folder / "ids.json"
    ids_file.write_text(json.dumps(ids[0].tolist()))
    done = subprocess.run([DRIVER, verb, "--model", folder, "--ids", ids_file, "--out", out, *flags],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def our_logits(folder, ids, *flags):
    out = drive("logits", folder, ids, folder / "logits.safetensors", *flags)
    return load_file(out)["logits"]


def largest_difference(a, b):
    return (a.float() - b.float()).abs().max().item()


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@torch.no_grad()
def test_logits_f32(name, tmp_path):
    model, ids = create(name, tmp_path), token_ids()
    expected = model(ids).logits[0]
    assert expected.std() > 0.1, "the test model says nothing"
    whole = our_logits(tmp_path, ids)
    assert whole.shape == expected.shape
    assert largest_difference(whole, expected) <= F32_BOUND
    chunked = our_logits(tmp_path, ids, "--chunk", "64")
    assert largest_difference(chunked, whole) <= F32_BOUND


@torch.no_grad()
def test_logits_bf16(name, tmp_path):
    model, ids = create(name, tmp_path, torch.bfloat16), token_ids()
    theirs = model(ids).logits[0].float()
    exact = load(tmp_path)(ids).logits[0]
    ours = our_logits(tmp_path, ids, "--dtype", "bf16")
    rms = lambda difference: difference.pow(2).mean().sqrt().item()
    assert rms(ours - exact) <= BF16_RMS * rms(theirs - exact)
    assert largest_difference(ours, exact) <= BF16_LARGEST * largest_difference(theirs, exact)


@torch.no_grad()
def test_greedy_text(name, tmp_path):
    model, ids = create(name, tmp_path), token_ids(90)
    kwargs = dict(max_new_tokens=24, do_sample=False, pad_token_id=0)
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), **kwargs)[0, 90:].tolist()
    out = drive("generate", tmp_path, ids, tmp_path / "text.json", "--tokens", "24")
    assert json.loads(out.read_text()) == expected


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_yarn", "phi4_mini"], indirect=True)
def test_sharded_files(name, tmp_path):
    model, ids = create(name, tmp_path, max_shard_size="60KB"), token_ids()
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert largest_difference(our_logits(tmp_path, ids), model(ids).logits[0]) <= F32_BOUND


@torch.no_grad()
def test_f16_file_is_read_as_f32(tmp_path):
    create("llama_linear", tmp_path, torch.float16)
    model = load(tmp_path)
    ids = token_ids()
    assert largest_difference(our_logits(tmp_path, ids), model(ids).logits[0]) <= F32_BOUND


@torch.no_grad()
def test_saved_model(name, tmp_path):
    """What we write is a folder that transformers loads, with the same bits."""
    model = create(name, tmp_path / "from")
    drive("save", tmp_path / "from", token_ids(1), tmp_path / "to")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "to").state_dict()
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3_rope_tied"], indirect=True)
def test_head_that_differs_though_tied(name, tmp_path):
    create(name, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"] = 0.2 * torch.randn(weights["model.embed_tokens.weight"].shape)
    save_file(weights, path, metadata={"format": "pt"})
    ids = token_ids()
    assert largest_difference(our_logits(tmp_path, ids), load(tmp_path)(ids).logits[0]) <= F32_BOUND


OLDER = ["llama3_rope_tied", "llama_yarn", "mistral_window", "qwen2", "qwen3", "phi3_longrope_long", "phi4_mini"]


@pytest.fixture(scope="module")
def older_folders(tmp_path_factory, older_transformers):
    """Folders that transformers 4.51 wrote, with its logits."""
    folder = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, pathlib.Path(__file__).with_name("model_families.py"), folder, *OLDER],
                   check=True, env=older_transformers)
    return folder


@pytest.mark.parametrize("name", OLDER)
def test_older_transformers(older_folders, name):
    folder = older_folders / name
    assert json.loads((folder / "config.json").read_text())["transformers_version"] == "4.51.3"
    ids = torch.tensor([json.loads((folder / "ids.json").read_text())])
    expected = load_file(folder / "expected.safetensors")["logits"]
    assert largest_difference(our_logits(folder, ids), expected) <= F32_BOUND
