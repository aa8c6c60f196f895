"""seer.attach on small random models of every family: dense attention's logits, the program's, and those of single sequences, in the
ways that transformers calls a model. Runs under the transformers that it finds; test_older_transformers runs it under 4.51."""
import copy
import gc
import io
import json
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.modeling_outputs import CausalLMOutputWithPast

import seer
from conftest import ROOT
from model_families import MODELS, create, load, token_ids

FAMILIES = ["llama3_rope_tied", "llama_bias_head_dim", "llama_dynamic_grown", "mistral", "mistral_window", "qwen2", "qwen2_window_layers",
            "qwen3_bias", "phi3", "phi3_window", "phi3_longrope_long", "phi4_mini"]
ONE_EACH = ["llama3_rope_tied", "mistral", "qwen2", "qwen3_bias", "phi3"]
BOUND = 1e-4
BLOCK = 16
IS_OLDER = transformers.__version__.startswith("4.")
CACHE = next(name for name in ("cache", "past_key_values") if name in CausalLMOutputWithPast.__dataclass_fields__)  # the newest: cache
BY_ROW = dict(rule="row_budget", strength=48)  # does not depend on a prompt's length


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By name: a model's folder, with gates in `gates` whose scores differ."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            model = seer.attach(create(name, made[name]), seer.GateConfig(block_size=BLOCK), 0.5)
            torch.manual_seed(3)
            for layer in model.seer.layers:
                torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
            seer.save_gates(model, made[name] / "gates")
        return made[name]

    return folder


@pytest.fixture
def model(folders):
    """A llama with gates; settings as a test sets them."""
    return attached(folders("llama3_rope_tied"), **BY_ROW)


def attached(folder, *args, **settings):
    return seer.attach(load(folder), folder / "gates", *args, **settings)


def distance(a, b):
    return (a - b).abs().max().item()


def lists_of(model, *args, **kwargs):
    """Logits, and what was chosen in each pass."""
    with seer.record_lists(model) as passes:
        logits = model(*args, **kwargs).logits
    return logits, passes


def batch_of(*lens, side="left"):
    """Tokens of one text each, padded; ids and mask [B, longest]."""
    ids, mask = torch.zeros(len(lens), max(lens), dtype=torch.long), torch.zeros(len(lens), max(lens), dtype=torch.long)
    for row, n in enumerate(lens):
        part = slice(max(lens) - n, None) if side == "left" else slice(0, n)
        ids[row, part], mask[row, part] = token_ids(200)[0, row * 7:row * 7 + n], 1
    return ids, mask


# ---- What is computed ----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_density_one_is_dense(name, folders):
    model, ids = load(folders(name)), token_ids()
    want = model(ids).logits
    seer.attach(model, folders(name) / "gates", 0.0)
    got, passes = lists_of(model, ids)
    if not (IS_OLDER and name == "qwen2_window_layers"):  # its sdpa gives every layer the window
        assert distance(got, want) <= BOUND
    windows = MODELS[name].sliding_window if "window" in name else None
    assert len(passes[0]) == (0 if name in ("mistral_window", "phi3_window") else 1 if windows else 3)
    assert all(lists.density() == 1 for lists in passes[0].values())
    seer.detach(model)
    assert torch.equal(model(ids).logits, want)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_programs(name, folders, seer_program, tmp_path):
    folder, ids = folders(name), token_ids()
    (tmp_path / "ids.json").write_text(json.dumps(ids[0].tolist()))
    model, dense = attached(folder, 0.0), load(folder)(ids).logits[0]
    cases = [dict(sparsity=0.7)]
    if name == "llama3_rope_tied":
        cases += [dict(rule="threshold", strength=0.1), dict(rule="top_p", strength=0.6), dict(rule="head_budget", sparsity=0.6),
                  dict(sparsity=0.9, sink_blocks=1, local_blocks=1, last_dense_rows=2)]
    for case in cases:
        flags = [word for key, value in case.items() for word in ("--" + key.replace("_", "-"), value)]
        seer_program("logits", "--model", folder, "--method", "seer", "--gates", folder / "gates", "--ids", tmp_path / "ids.json", "--dtype", "f32",
                     "--out", tmp_path / "logits.safetensors", *flags)
        model.seer.update(**{"rule": "nz_ratio", "sparsity": None, "strength": None, **case})
        got = model(ids).logits[0]
        assert distance(got, load_file(tmp_path / "logits.safetensors")["logits"]) <= BOUND, case
        assert "window" in name or distance(got, dense) > 100 * BOUND, "nothing was left out"


@pytest.fixture(scope="session")
def seer_program(seer):
    return seer


@torch.no_grad()
def test_bf16_is_near_dense_at_density_one(folders):
    folder, ids = folders("qwen3_bias"), token_ids()
    model = load(folder, torch.bfloat16)  # of files in f32: their gates are these
    want, exact = model(ids).logits.float(), load(folder, torch.bfloat16).float()(ids).logits
    got = seer.attach(model, folder / "gates", 0.0)(ids).logits.float()
    assert (got - exact).square().mean() <= 1.2 * (want - exact).square().mean()


@torch.no_grad()
@pytest.mark.parametrize("name", ONE_EACH)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(name, side, folders):
    model, lens = attached(folders(name), 0.7), (150, 97, 5, 33)
    ids, mask = batch_of(*lens, side=side)
    for use_cache in (False, True):
        got = model(ids, attention_mask=mask, use_cache=use_cache).logits
        for row in range(len(lens)):
            real = mask[row].bool()
            assert distance(got[row, real], model(ids[row:row + 1, real]).logits[0]) <= BOUND


@torch.no_grad()
@pytest.mark.parametrize("name,lens", [("llama3_rope_tied", (70, 1, 60, 19)), ("mistral_window", (71, 40, 39)), ("phi3", (70, 1, 60, 19))])
def test_packed_sequences_are_single_ones(name, lens, folders):
    model, ids = attached(folders(name), 0.7), token_ids(150)
    positions = torch.cat([torch.arange(n) for n in lens])[None]
    cu = torch.tensor([0, *lens]).cumsum(0).int()
    want = torch.cat([model(part).logits for part in ids.split(lens, 1)], 1)
    assert distance(model(ids, position_ids=positions, use_cache=False).logits, want) <= BOUND
    longest = dict(cu_seq_lens_q=cu, cu_seq_lens_k=cu, max_length_q=70, max_length_k=70)
    assert distance(model(ids, position_ids=positions, use_cache=False, **longest).logits, want) <= BOUND
    assert distance(model(ids, attention_mask=torch.ones_like(ids), use_cache=False, **longest, position_ids=positions).logits, want) <= BOUND
    two = model(ids.repeat(2, 1), position_ids=positions, use_cache=False).logits
    assert distance(two, want.repeat(2, 1, 1)) <= BOUND
    short = ids[:, :12]  # a dense call
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    want = torch.cat([model(part).logits for part in short.split((5, 7), 1)], 1)
    assert distance(model(short, position_ids=positions, use_cache=False).logits, want) <= BOUND


# ---- Caches --------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ONE_EACH)
def test_chunks_on_the_grid_are_the_whole_prompt(name, folders):
    model, ids = attached(folders(name), 0.7, last_dense_rows=1, prompt_tokens=150), token_ids()
    want = model(ids).logits
    cache, got = None, []
    for part in ids.split((48, 64, 38), 1):
        out = model(part, **{CACHE: cache}, use_cache=True)
        cache = getattr(out, CACHE)
        got.append(out.logits)
    assert distance(torch.cat(got, 1), want) <= BOUND


def same_rows(whole, part, first):
    """Whether the lists of a chunk are those of the whole text from row `first` on."""
    a, b = whole.to_mask()[:, first:], part.to_mask()
    return torch.equal(a[:, :, :b.shape[2]], b) and not a[:, :, b.shape[2]:].any()


@torch.no_grad()
@pytest.mark.parametrize("before", [(40,), (7, 1, 1, 1, 30), (1,) * 90], ids=["chunk", "decoded", "all_decoded"])
@pytest.mark.parametrize("pads", [0, 11])
def test_chunks_off_the_grid(model, before, pads):
    """Gate keys of tokens that were read before, in whatever pieces: the first layer's lists are the whole text's."""
    ids, mask = token_ids(150), torch.ones(1, 150 + pads, dtype=torch.long)
    mask[:, :pads] = 0
    padded = torch.cat([torch.zeros(1, pads, dtype=torch.long), ids], 1)
    whole = lists_of(model, ids)[1][0][0]
    cache, at, rest = None, 0, 150 + pads - pads - sum(before)
    for n in (pads + before[0], *before[1:]):
        out = model(padded[:, at:at + n], attention_mask=mask[:, :at + n], **{CACHE: cache}, use_cache=True)
        cache, at = getattr(out, CACHE), at + n
    copied = copy.deepcopy(cache)
    for kept in (copied, cache):  # a prefix can be used again and again
        logits, passes = lists_of(model, padded[:, at:], attention_mask=mask, **{CACHE: kept}, use_cache=True)
        first = -(-sum(before) // BLOCK)
        assert same_rows(whole, passes[-1][0], first) and logits.shape[1] == rest
    model.seer.update(rule="nz_ratio", sparsity=0.0, strength=None)
    fresh = None
    for part in padded.split((pads + 37, 20, 93), 1):
        seen = fresh.get_seq_length() if fresh is not None else 0
        out = model(part, attention_mask=mask[:, :seen + part.shape[1]], **{CACHE: fresh}, use_cache=True)
        fresh = getattr(out, CACHE)
    seer.detach(model)
    assert distance(out.logits, model(ids).logits[:, -93:]) <= BOUND


@torch.no_grad()
def test_reordered_and_cropped_caches(model):
    ids, mask = batch_of(100, 73)
    out = model(ids, attention_mask=mask, use_cache=True)
    cache, more = getattr(out, CACHE), token_ids(180)[:, 100:150].repeat(2, 1)
    cache.reorder_cache(torch.tensor([1, 0]))
    both = torch.cat([mask.flip(0), torch.ones_like(more)], 1)
    got = lists_of(model, more, attention_mask=both, **{CACHE: copy.deepcopy(cache)})[1][0][0]
    want = lists_of(model, torch.cat([ids.flip(0), more], 1), attention_mask=both)[1][0][0]
    for row, length in enumerate((73, 100)):
        first = -(-length // BLOCK)
        rows = slice(int(got.packing.cu_rows[row]), int(got.packing.cu_rows[row + 1]))
        whole = slice(int(want.packing.cu_rows[row]) + first, int(want.packing.cu_rows[row + 1]))
        assert torch.equal(got.to_mask()[:, rows], want.to_mask()[:, whole])
    one = getattr(model(ids[:1], use_cache=True), CACHE)
    for n in (3, 17):  # an assistant's guesses; from 100 tokens to 80, a multiple of a block
        one.crop(-n)
        logits, passes = lists_of(model, more[:1, :40], **{CACHE: copy.deepcopy(one)})
        whole = lists_of(model, torch.cat([ids[:1, :one.get_seq_length()], more[:1, :40]], 1))[1][0][0]
        assert same_rows(whole, passes[-1][0], -(-one.get_seq_length() // BLOCK))
    one.crop(-43)
    with pytest.raises(ValueError, match=r"cropped to 37 tokens of row 0, .* to a multiple of 16 tokens"):
        model(more[:1, :40], **{CACHE: one})


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3_rope_tied", "phi3"])
def test_nothing_of_a_call_is_held(name, folders, monkeypatch):
    """A layer's q and k before RoPE are given up before its attention, its cache after the call."""
    model, ids, held = attached(folders(name), **BY_ROW), token_ids(100), []
    real = seer._attention.attention
    of_all = lambda: [layer.attn_gate.kept for layer in model.seer.layers if layer.attn_gate.kept]
    monkeypatch.setattr(seer._attention, "attention", lambda *args, **settings: held.append(of_all()) or real(*args, **settings))
    cache = weakref.ref(getattr(model(ids, use_cache=True), CACHE))
    gc.collect()
    assert held == [[]] * 3 and not of_all() and cache() is None
    model(ids[:, :5])
    assert not of_all()


@torch.no_grad()
def test_caches_and_models_are_pickled(model, monkeypatch):
    ids, file = token_ids(150), io.BytesIO()
    cache = getattr(model(ids[:, :96], use_cache=True), CACHE)
    torch.save((model, cache), file)
    file.seek(0)
    monkeypatch.delitem(transformers.modeling_utils.AttentionInterface._global_mapping, "seer")  # as in another process
    again, prefix = torch.load(file, weights_only=False)
    want = model(ids[:, 96:], **{CACHE: cache}).logits
    assert torch.equal(again(ids[:, 96:], **{CACHE: prefix}).logits, want)


@torch.no_grad()
def test_another_attention_is_not_taken_silently(model):
    ids = token_ids(100)
    want = model(ids).logits
    model.config._attn_implementation = "eager"  # as set_attn_implementation does
    for _ in range(2):
        refused('was set to "eager" after seer.attach, so that no gate would be asked', model, ids)
    model.config._attn_implementation = "seer"
    assert torch.equal(model(ids).logits, want)


# ---- generate ------------------------------------------------------------------------------------


def generate(model, ids, mask=None, **settings):
    mask = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=mask, pad_token_id=0, max_new_tokens=12, **{"do_sample": False, **settings})


@torch.no_grad()
@pytest.mark.parametrize("name", ONE_EACH)
def test_greedy_text_follows_a_sparse_prompt(name, folders):
    """Sparse prompt, dense decoding: each token by the logits that a cache gives."""
    model, ids = attached(folders(name), 0.7), token_ids(100)
    out = model(ids, use_cache=True)
    want, cache = [], getattr(out, CACHE)
    for _ in range(12):
        want.append(out.logits[0, -1].argmax().item())
        if want[-1] == model.config.eos_token_id:
            break
        out = model(torch.tensor([want[-1:]]), **{CACHE: cache}, use_cache=True)
    with seer.record_lists(model) as passes:
        assert generate(model, ids)[0, 100:].tolist() == want
    assert len(passes) == 1
    ids, mask = batch_of(100, 61)
    rows = generate(model, ids, mask)
    for row, n in enumerate((100, 61)):
        alone = generate(model, ids[row:row + 1, 100 - n:])[0, n:]
        assert torch.equal(rows[row, 100:100 + len(alone)], alone)


@torch.no_grad()
def test_other_ways_to_generate(folders, model):
    """At density 1, what dense attention gives; below it, they run. (The first call of an assisted one holds guesses beside the prompt.)"""
    ids, mask = batch_of(100, 61)
    dense, assistant = load(folders("llama3_rope_tied")), load(folders("mistral"))
    ways = [dict(num_beams=3), dict(num_beams=2, num_return_sequences=2, do_sample=True, temperature=2.0), dict(do_sample=True, top_k=5),
            *([] if IS_OLDER else [dict(prefill_chunk_size=48)])]  # for which 4.51 compiles the model
    guesses = [dict(assistant_model=assistant), dict(prompt_lookup_num_tokens=3)]
    model.seer.update(rule="nz_ratio", sparsity=0.0, strength=None)
    for way in ways + guesses:
        batch = (ids[:1], mask[:1]) if way in guesses else (ids, mask)
        made = []
        for of in (dense, model):
            torch.manual_seed(1)
            made.append(generate(of, *batch, **way))
        assert torch.equal(*made), way
    model.seer.update(sparsity=0.7)
    for way in ways + guesses:
        batch = (ids[:1], mask[:1]) if way in guesses else (ids, mask)
        with seer.record_lists(model) as passes:
            generate(model, *batch, **way)
        assert 0 < passes[-1][2].density() < 0.7, way


# ---- Training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_with_checkpoints(model, reentrant):
    """Layers that run again in the backward take the blocks that they took before, also between other passes."""
    a, b = token_ids(100), token_ids(150)[:, 30:]
    model.train()

    def gradients():
        model.zero_grad()
        losses = [model(ids, labels=ids).loss for ids in (a, b)]
        sum(losses).backward()
        return {name: x.grad.clone() for name, x in model.named_parameters() if x.requires_grad}

    want = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    got = gradients()
    assert got.keys() == want.keys() and not any("attn_gate" in name for name in want)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-5, atol=1e-6)
    assert want["model.layers.0.self_attn.k_proj.weight"].abs().max() > 0


# ---- Recording and replaying ---------------------------------------------------------------------


@torch.no_grad()
def test_lists_are_recorded_and_replayed(model):
    ids = token_ids(100)
    with seer.record_lists(model) as passes:
        want = generate(model, ids)
        logits = model(ids).logits
    assert [sorted(lists) for lists in passes] == [[0, 1, 2]] * 2 and passes[0][0].density() < 0.8
    model.seer.update(rule="nz_ratio", sparsity=0.9, strength=None)
    assert distance(model(ids).logits, logits) > BOUND
    with seer.replay_lists(model, passes):
        assert torch.equal(generate(model, ids), want)
        assert torch.equal(model(ids).logits, logits)
        with pytest.raises(ValueError, match="no lists left"):
            model(ids)
    with seer.replay_lists(model, passes), pytest.raises(ValueError, match=r"for queries and keys \(100,\) of \(100,\), this call has \(90,\)"):
        model(ids[:, :90])
    for other in (passes[0], 5, [{0: "lists"}]):
        with pytest.raises(ValueError, match="want a list with an entry .* for each forward pass"), seer.replay_lists(model, other):
            pass
    with seer.replay_lists(model, [{0: passes[0][0]}]), pytest.raises(ValueError, match="no lists for layer 1"):
        model(ids)
    assert distance(model(ids).logits, logits) > BOUND


# ---- The model's state ---------------------------------------------------------------------------


@torch.no_grad()
def test_gates_are_submodules_and_leave_no_trace(folders, tmp_path):
    folder = folders("qwen3_bias")
    model, ids = load(folder), token_ids()
    names, implementation = set(model.state_dict()), model.config._attn_implementation
    want = attached(folder, 0.7)(ids).logits
    assert seer.attach(model, folder / "gates", 0.7) is model
    gates = load_file(folder / "gates" / "attn_gate_weights.safetensors")
    assert set(model.state_dict()) - names == set(gates)
    assert all(torch.equal(model.state_dict()[name], gates[name]) for name in gates)
    copied = copy.deepcopy(model)  # has gates of its own
    seer.save_gates(model, tmp_path)
    assert (tmp_path / "config.json").read_text() == (folder / "gates" / "config.json").read_text()
    seer.detach(model)
    assert set(model.state_dict()) == names and model.config._attn_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(copied(ids).logits, want) and torch.equal(model(ids).logits, load(folder)(ids).logits)
    seer.detach(copied)
    assert torch.equal(copied(ids).logits, model(ids).logits)
    # Published gates are pickles.
    torch.save(gates, tmp_path / "attn_gate_weights.pth")
    (tmp_path / "attn_gate_weights.safetensors").unlink()
    assert torch.equal(seer.attach(model, tmp_path, 0.7)(ids).logits, want)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3_rope_tied", "qwen2"])
def test_gates_of_other_forms(name, folders, seer_program, tmp_path):
    model, ids = load(folders(name)), token_ids()
    seer.attach(model, seer.GateConfig("Qmaxavg_Kmin", block_size=32, gate_dim=24), 0.6)
    for parameter in (p for layer in model.seer.layers for p in layer.attn_gate.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    seer.save_gates(model, tmp_path / "gates")
    (tmp_path / "ids.json").write_text(json.dumps(ids[0].tolist()))
    seer_program("logits", "--model", folders(name), "--method", "seer", "--gates", tmp_path / "gates", "--ids", tmp_path / "ids.json",
                 "--dtype", "f32", "--sparsity", 0.6, "--out", tmp_path / "logits.safetensors")
    assert distance(model(ids).logits[0], load_file(tmp_path / "logits.safetensors")["logits"]) <= BOUND


@torch.no_grad()
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    """bf16: near dense attention at density 1; padding, chunks and generate."""
    config = transformers.LlamaConfig(hidden_size=512, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=500, initializer_range=0.1)
    model = transformers.AutoModelForCausalLM.from_config(config).to("cuda", torch.bfloat16).eval()
    ids = torch.randint(3, 500, (2, 1000), device="cuda")
    mask = torch.ones_like(ids)
    mask[1, :300] = 0
    exact = copy.deepcopy(model).float()(ids[:1]).logits
    want = model(ids[:1]).logits.float()
    seer.attach(model, seer.GateConfig(), 0.0)
    error = lambda x: (x.float() - exact).square().mean()
    assert error(model(ids[:1]).logits) <= 1.3 * error(want)
    model.seer.update(rule="row_budget", strength=256, sparsity=None)
    with seer.record_lists(model) as passes:
        both = model(ids, attention_mask=mask).logits
        alone = model(ids[1:, 300:]).logits
    rows = slice(int(passes[0][0].packing.cu_rows[1]), None)
    agree = lambda a, b: (a == b).float().mean() > 0.99  # products of other sizes may round in another way
    assert agree(passes[0][0].to_mask()[:, rows, :11], passes[1][0].to_mask())
    assert (both[1:, 300:].float() - alone.float()).abs().median() < 0.05
    first = model(ids[:1, :700], use_cache=True)
    with seer.record_lists(model) as parts:
        model(ids[:1, 700:], **{CACHE: getattr(first, CACHE)})
        model(ids[:1])
    assert agree(parts[1][0].to_mask()[:, 11:], parts[0][0].to_mask())
    assert generate(model, ids, mask).shape == (2, 1012) and not torch.isnan(both[0]).any()


# ---- Errors --------------------------------------------------------------------------------------


def refused(message, call, *args, error=ValueError, **kwargs):
    with pytest.raises(error, match=message) as found:
        call(*args, **kwargs)
    assert "\n" not in str(found.value)
    return str(found.value)


@torch.no_grad()
def test_calls_that_are_refused(model, folders):
    ids = token_ids(40)
    mask = torch.ones_like(ids)
    refused(r"attention_mask is \[1, 1, 40, 40\], want padding", model, ids, attention_mask=torch.ones(1, 1, 40, 40))
    refused(r"attention_mask is \[1, 39\], want \[1, 40\]", model, ids, attention_mask=mask[:, 1:])
    hole = mask.clone()
    hole[0, 7:9] = 0
    refused("attention_mask of row 0 has 2 zeros between its ones", model, ids, attention_mask=hole)
    refused("output_attentions=True is not supported", model, ids, output_attentions=True)
    static = transformers.StaticCache(config=model.config, max_cache_len=64, max_batch_size=1)
    refused("a cache of class StaticCache is not supported, want DynamicCache", model, ids, **{CACHE: static})
    refused("cu_seq_lens_q must rise from 0 to the 40 tokens", model, ids, cu_seq_lens_q=torch.tensor([0, 30]), use_cache=False)
    padded = mask.clone()
    padded[0, :3] = 0
    refused("cu_seq_lens_q packs sequences, beside padding", model, ids, attention_mask=padded, cu_seq_lens_q=torch.tensor([0, 40]))
    dense = load(folders("llama3_rope_tied"))
    filled = getattr(dense(ids, use_cache=True), CACHE)
    refused("the cache holds 40 tokens that were not read with these gates", model, token_ids(100), **{CACHE: filled})
    refused("the model got neither", model)
    for of in (model.config, model.model.layers[1].self_attn):  # a model made an encoder
        before, of.is_causal = getattr(of, "is_causal", True), False
        refused("is_causal is False, and sparse attention is causal", model, ids)
        of.is_causal = before
    model.config.attention_dropout = model.model.layers[0].self_attn.attention_dropout = 0.1
    refused("attention_dropout is 0.1", model.train(), ids)


def dense_once(model, message):
    """A function that calls the model: the first call warns, the second of the same cause does not."""
    def call(*args, **kwargs):
        with pytest.warns(UserWarning, match=f"{message}.*; such calls are dense, as strict=False"):
            first = model(*args, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            again = model(*args, **kwargs)
        assert torch.equal(first.logits, again.logits) and model.config._attn_implementation == "seer"
        return first
    return call


@pytest.mark.parametrize("name", ["llama3_rope_tied", "phi3_window"])
def test_calls_that_are_dense_where_it_need_not_be_strict(name, folders):
    """What is refused else is the call of a model without gates; other calls stay sparse."""
    dense, model, ids = load(folders(name)), attached(folders(name), **BY_ROW, strict=False), token_ids(100)
    sparse = model(ids).logits
    hole, prefix = torch.ones_like(ids), torch.ones(1, 1, 100, 100, dtype=torch.bool).tril()
    hole[0, 7:29] = 0
    prefix[..., :40] = True  # prefix-LM
    for mask, message in ((hole, "attention_mask of row 0 has 22 zeros"), (prefix, r"attention_mask is \[1, 1, 100, 100\], want padding")):
        model.seer.warned.clear()
        assert torch.equal(dense_once(model, message)(ids, attention_mask=mask).logits, dense(ids, attention_mask=mask).logits)
        assert torch.equal(model(ids).logits, sparse)
    if not IS_OLDER:  # which knows only causal masks
        model.config.is_causal = dense.config.is_causal = False
        assert torch.equal(dense_once(model, "is_causal is False")(ids).logits, dense(ids).logits)
        model.config.is_causal = dense.config.is_causal = True
    dense.config._attn_implementation = "eager"
    got, want = (call(ids, output_attentions=True) for call in (dense_once(model, "output_attentions=True is not supported"), dense))
    assert torch.equal(got.logits, want.logits) and all(map(torch.equal, got.attentions, want.attentions)) and len(got.attentions) == 3
    with pytest.raises(IndexError):  # within a dense call
        model(ids + 1000, attention_mask=hole)
    assert torch.equal(model(ids).logits, sparse)
    model.seer.update(strict=True)
    refused("attention_mask of row 0 has 22 zeros", model, ids, attention_mask=hole)


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["kept", "checkpoint", "reentrant"])
def test_dropout_where_it_need_not_be_strict(model, folders, reentrant):
    """Training with dropout is that without gates, also where layers run again."""
    ids, made = token_ids(100), []
    model.seer.update(strict=False)
    for of in (load(folders("llama3_rope_tied")), model):
        of.train()
        for layer in of.model.layers:
            layer.self_attn.attention_dropout = 0.1
        if reentrant is not None:
            of.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            of.enable_input_require_grads()
        torch.manual_seed(1)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            of(ids, labels=ids).loss.backward()
        assert any("attention_dropout is 0.1" in str(x.message) for x in found) == (of is model)
        made.append({name: x.grad for name, x in of.named_parameters() if x.grad is not None})
    assert made[0].keys() == made[1].keys() and all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    refused("seer.gate_loss: the last pass had none", lambda: model.seer.gate_loss)


@torch.no_grad()
def test_caches_where_it_need_not_be_strict(model, folders):
    model.seer.update(strict=False)
    ids, dense = token_ids(150), load(folders("llama3_rope_tied"))
    want = dense(ids).logits
    filled = getattr(dense(ids[:, :40], use_cache=True), CACHE)
    with pytest.warns(UserWarning, match="the cache holds 40 tokens that were not read with these gates"):
        got = model(ids[:, 40:100], **{CACHE: filled}, use_cache=True)
    rest = model(ids[:, 100:], **{CACHE: getattr(got, CACHE)}).logits  # no second warning
    assert distance(torch.cat([got.logits, rest], 1), want[:, 40:]) <= BOUND
    one = getattr(model(ids[:, :100], use_cache=True), CACHE)
    one.crop(-63)
    want = dense(ids[:, 37:100], **{CACHE: copy.deepcopy(one)}).logits
    model.seer.warned.clear()
    with pytest.warns(UserWarning, match="the cache was cropped to 37 tokens of row 0"):
        assert distance(model(ids[:, 37:100], **{CACHE: one}).logits, want) <= BOUND
    static = transformers.StaticCache(config=model.config, max_cache_len=64, max_batch_size=1)
    refused("a cache of class StaticCache is not supported, want DynamicCache", model, ids[:, :40], **{CACHE: static})
    # Padding that is none in what generate is given.
    batch, mask = batch_of(60, 41)
    mask[0, 30:33] = 0
    settings = dict(attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
    model.seer.warned.clear()
    with pytest.warns(UserWarning, match="attention_mask of row 0 has 3 zeros"):
        assert torch.equal(model.generate(batch, **settings), dense.generate(batch, **settings))


@torch.no_grad()
def test_models_and_gates_that_are_refused(folders, tmp_path):
    folder = folders("llama3_rope_tied")
    model = load(folder)
    refused("has no gates", seer.detach, model)
    refused("model is of class str, want a model of transformers", seer.attach, "model", folder / "gates", 0.5)
    refused("gates is None, want their folder, or a seer.GateConfig", seer.attach, model, None, 0.5)
    for settings in (dict(sink_blocks=-1), dict(prompt_tokens=0.5), dict(dense_below="all"), dict(sparsity=[0.5, 0.6])):
        name, = settings
        refused(f"{name} (is|has)", seer.attach, model, folder / "gates", **{"sparsity": 0.5, **settings})
    refused("the model has no gates", seer.save_gates, model, tmp_path)
    refused("takes sparsity, and no strength", seer.attach, model, folder / "gates", strength=0.5)
    refused("sparsity is 1.5", seer.attach, model, folder / "gates", 1.5)
    refused("holds config.json and attn_gate_weights", seer.attach, model, tmp_path / "nowhere", 0.5)
    refused("Someone/Gates-8B is no folder here; .* got by `hf download Someone/Gates-8B --local-dir Gates-8B`", seer.attach, model, "Someone/Gates-8B", 0.5)
    refused("seerattn_gate_type.* is missing; this is a model's config.json", seer.attach, model, folder, 0.5)
    refused(r"holds 3 tensors, expected 6 for a model of 3 layers; are these gates of another model", seer.attach, load(folders("mistral")),
            folder / "gates", 0.5)
    refused("these gates were made for another model, .* take foreign_gates=True", seer.attach, load(folders("qwen2")), folder / "gates", 0.5)
    seer.attach(load(folders("qwen2")), folder / "gates", 0.5, foreign_gates=True)
    other = load(folder)
    other.config.rms_norm_eps = 1e-3
    refused(r"the same weights but other settings \(rms_norm_eps\)", seer.attach, other, folder / "gates", 0.5)
    assert not hasattr(model.model.layers[0].self_attn, "attn_gate") and model.config._attn_implementation != "seer"
    seer.attach(model, folder / "gates", 0.5)
    refused("no setting density, want some of sparsity, rule", model.seer.update, density=0.5)
    refused("the rule top_p takes strength", model.seer.update, rule="top_p")
    assert model.seer.settings["rule"] == "nz_ratio"
    refused("has gates already", seer.attach, model, folder / "gates", 0.5)
    refused("has gates already", seer.attach, model.model, folder / "gates", 0.5)
    projection = model.model.layers[1].self_attn.k_proj
    model.model.layers[1].self_attn.k_proj = torch.nn.Sequential(projection)
    refused("k_proj of layer 1 was replaced after seer.attach", model, token_ids(40))
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50))
    refused("GPT2LMHeadModel has no decoder layers with a rotary embedding; .* LlamaAttention, MistralAttention", seer.attach, gpt, folder, 0.5)
    gemma = transformers.GemmaForCausalLM(transformers.GemmaConfig(num_hidden_layers=1, hidden_size=32, intermediate_size=32, vocab_size=50,
                                                                   num_attention_heads=2, num_key_value_heads=2, head_dim=16))
    refused("layer 0 of GemmaModel has attention of class .*GemmaAttention, supported are LlamaAttention", seer.attach, gemma, folder, 0.5)
    class LlamaAttention(torch.nn.Module):  # of a model's own code, which may know no registry
        pass
    theirs = load(folder)
    theirs.model.layers[1].self_attn = LlamaAttention()
    refused(r"layer 1 of LlamaModel has attention of class .*LlamaAttention, supported are .* of transformers.models", seer.attach, theirs, folder, 0.5)
    for weights, message in (({}, "holds 0 tensors, expected 3 for a model of 3 layers"), ({"a": 1, "b": 2, "c": 3}, "attn_gate.* is missing")):
        gates = tmp_path / "gates"
        gates.mkdir(exist_ok=True)
        (gates / "config.json").write_text((folder / "gates" / "config.json").read_text())
        torch.save(weights, gates / "attn_gate_weights.pth")
        refused(message, seer.attach, load(folder), gates, 0.5)
    for name in ("attn_gate_weights.pth", "attn_gate_weights.safetensors"):
        (gates / name).write_text("no tensors")
        refused(f"{name} cannot be read.*; is the file whole", seer.attach, load(folder), gates, 0.5)


def test_versions_of_transformers(model, folders, monkeypatch):
    folder = folders("llama3_rope_tied")
    there = sys.modules["transformers"]  # it replaces itself while it loads
    monkeypatch.setattr(there, "__version__", "4.40.2")
    refused("transformers 4.40.2 is too old, want 4.51 to 5.24", seer.attach, load(folder), folder / "gates", 0.5, error=ImportError)
    monkeypatch.setattr(there, "__version__", "6.0.0")
    refused("transformers 6.0.0 was not tested, 4.51 to 5.24 were; strict=False tries it", seer.attach, load(folder), folder / "gates", 0.5,
            error=ImportError)
    with pytest.warns(UserWarning, match="transformers 6.0.0 was not tested"):
        seer.attach(load(folder), folder / "gates", 0.5, strict=False)


@pytest.mark.skipif(IS_OLDER, reason="this is it")
def test_older_transformers(older_transformers):
    """This file and those of training and lookup heads under transformers 4.51, with fewer models."""
    files = __file__, *(ROOT / "tests" / "python" / f"test_package_{name}.py" for name in ("distill", "find_lookups", "lookup", "training"))
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-k",
                          "not (head_dim or grown or phi3_window or longrope or padding and qwen)", *files], env=older_transformers, cwd=ROOT / "tests",
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]


# ---- Other libraries -----------------------------------------------------------------------------


def test_adapters_of_peft(folders):
    """Attached after them: q and k come with what they add. Before them, it is seen."""
    peft = pytest.importorskip("peft")
    folder, ids = folders("llama3_rope_tied"), token_ids()
    lora = peft.LoraConfig(target_modules=["q_proj", "k_proj"], r=4, init_lora_weights=False)
    model = peft.get_peft_model(load(folder), lora)
    want = model(ids).logits
    seer.attach(model, folder / "gates", 0.0)
    assert distance(model(ids).logits, want) <= BOUND < distance(want, load(folder)(ids).logits)
    model.seer.update(sparsity=0.7)
    model.train()(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_" in name and ".0." in name)
    merged = model.merge_and_unload()  # the model inside, whose hooks are still there
    refused("q_proj of layer 0 was replaced after seer.attach", merged, ids)
    seer.detach(merged)
    assert distance(merged(ids).logits, want) <= BOUND and not hasattr(model, "seer")
    unaware = peft.get_peft_model(attached(folder, 0.7), lora)
    refused("q_proj of layer 0 was replaced after seer.attach", unaware, ids)


@torch.no_grad()
def test_layers_on_other_devices(folders, tmp_path):
    """device_map: a layer whose weights are on the disk while it does not run."""
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM
    folder, ids = folders("qwen2"), token_ids()
    places = {name: "cpu" for name in ("model.embed_tokens", "model.layers.0", "model.layers.2", "model.norm", "model.rotary_emb", "lm_head")}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map={**places, "model.layers.1": "disk"}, offload_folder=tmp_path)
    with pytest.warns(UserWarning, match="cannot be seen, as its weights are quantised or elsewhere"):
        seer.attach(model, folder / "gates", 0.7)
    assert distance(model(ids).logits, attached(folder, 0.7)(ids).logits) <= BOUND


@torch.no_grad()
@pytest.mark.skipif(IS_OLDER and not torch.cuda.is_available(), reason="4.51 has it on GPUs only")
def test_quantised_base(folders):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    folder, ids = folders("mistral"), token_ids()
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu")
    want = model(ids).logits
    with pytest.warns(UserWarning, match="cannot be seen, as its weights are quantised or elsewhere"):
        seer.attach(model, folder / "gates", 0.0)
    assert distance(model(ids).logits, want) <= BOUND
