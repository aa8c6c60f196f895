"""Small random models of every supported family: our program against transformers."""
import json
import os
import pathlib
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Phi3Config, Qwen2Config, Qwen3Config

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SEER_BUILD", ROOT / "build"))
DRIVER = BUILD / "model_driver"

F32_BOUND = 1e-4
# In bf16 the bound is transformers' own error: the distance of its bf16 logits from its f32 logits of the
# same weights. Ours (which round once less in RMSNorm) may be this many times as far from the latter.
BF16_RMS, BF16_LARGEST = 1.1, 1.5

SMALL = dict(
    vocab_size=160, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    initializer_range=0.2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LONG = dict(short_factor=[1.0 + 0.05 * i for i in range(8)], long_factor=[1.0 + 0.9 * i for i in range(8)])
PARTIAL = dict(short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.0, 2.0, 3.0, 5.0, 8.0, 13.0])


def config(cls, **settings):
    return cls(**{**SMALL, **settings})


MODELS = {
    "llama3_rope_tied": config(LlamaConfig, rope_scaling=LLAMA3, tie_word_embeddings=True),
    "llama_bias_head_dim": config(LlamaConfig, head_dim=24, attention_bias=True, mlp_bias=True),
    "llama_no_gqa": config(LlamaConfig, num_key_value_heads=4, rope_theta=500000.0),
    "llama_linear": config(LlamaConfig, rope_scaling=dict(type="linear", factor=4.0)),
    "llama_dynamic_grown": config(LlamaConfig, max_position_embeddings=64,
                                  rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama_dynamic_short": config(LlamaConfig, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama_yarn": config(LlamaConfig, rope_scaling=dict(rope_type="yarn", factor=4.0,
                                                        original_max_position_embeddings=128)),
    "mistral": config(MistralConfig, sliding_window=None, head_dim=32),
    "mistral_window": config(MistralConfig, sliding_window=37),
    "qwen2": config(Qwen2Config),
    "qwen2_tied_yarn": config(Qwen2Config, tie_word_embeddings=True,
                              rope_scaling=dict(type="yarn", factor=2.0)),
    "qwen3": config(Qwen3Config, head_dim=32),
    "qwen3_bias": config(Qwen3Config, head_dim=16, attention_bias=True),
    "phi3": config(Phi3Config),
    "phi3_window": config(Phi3Config, sliding_window=50),
    "phi3_longrope_short": config(Phi3Config, original_max_position_embeddings=256,
                                  rope_scaling=dict(type="longrope", **LONG)),
    "phi3_longrope_long": config(Phi3Config, original_max_position_embeddings=100,
                                 rope_scaling=dict(type="longrope", **LONG)),
    "phi4_mini": config(Phi3Config, partial_rotary_factor=0.75, tie_word_embeddings=True,
                        original_max_position_embeddings=100,
                        rope_scaling=dict(type="longrope", **PARTIAL)),
}
LENGTH = 150  # tokens: not a multiple of anything, longer than the windows and than the short contexts


def randomise(model):
    """transformers starts biases at 0 and norms at 1, which would hide that they are left out."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))


def create(name, folder, dtype=torch.float32, **save):
    torch.manual_seed(sorted(MODELS).index(name))
    model = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    randomise(model)
    model.to(dtype).save_pretrained(folder, **save)
    # The configuration objects of transformers keep what they were given: read back what was written.
    return AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype).eval()


def token_ids(length=LENGTH):
    return torch.randint(3, SMALL["vocab_size"], (1, length), generator=torch.Generator().manual_seed(7))


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
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, torch_dtype=torch.float32).eval()(ids).logits[0]
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
def test_qwen_window_layers(tmp_path):
    """Qwen slides only from layer max_window_layers on; transformers 4.51 does so with flash attention
    alone, so the reference is its own eager attention with masks made per layer."""
    settings = config(Qwen2Config, use_sliding_window=True, sliding_window=37, max_window_layers=1)
    MODELS["qwen2_window_layers"] = settings
    try:
        model = create("qwen2_window_layers", tmp_path)
    finally:
        del MODELS["qwen2_window_layers"]
    ids, at = token_ids(), torch.arange(LENGTH)
    sees = at[None, :] <= at[:, None]
    near = sees & (at[None, :] > at[:, None] - 37)
    for index, layer in enumerate(model.model.layers):
        mask = torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~(near if index >= 1 else sees), -1e30)
        forward = layer.self_attn.forward
        layer.self_attn.forward = lambda *a, _f=forward, _m=mask, **k: _f(*a, **{**k, "attention_mask": _m})
    assert largest_difference(our_logits(tmp_path, ids), model(ids).logits[0]) <= F32_BOUND


@torch.no_grad()
def test_f16_file_is_read_as_f32(tmp_path):
    create("llama_linear", tmp_path, torch.float16)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, torch_dtype=torch.float32).eval()
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
