"""Lookup heads of the package: seer.lookup_scores, Gate.lookups, gates' folders, models. Runs under the transformers that it finds."""
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import seer
from model_families import create, load, token_ids
from seer._learning import Learning
from test_package_models import BLOCK, BOUND, BY_ROW, CACHE, batch_of, distance, refused, seer_program  # noqa: F401

RANK = 16
HEADS = {0: [1, 2], 2: [0, 1, 3]}  # of 3 layers with 4 heads, 2 key heads


def config_with(heads):
    return seer.GateConfig(block_size=BLOCK, lookup_rank=RANK if heads else 0, lookup_heads=heads)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def strong(gate):
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return gate


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By name: a model's folder, with gates in `gates`, and those without lookup heads in `plain`."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            model = create(name, made[name])
            for where, heads in (("gates", HEADS), ("plain", {})):
                seer.attach(model, config_with(heads), 0.5)
                for number, layer in enumerate(model.seer.layers):
                    torch.manual_seed(number)
                    strong(layer.attn_gate)
                seer.save_gates(model, made[name] / where)
                seer.detach(model)
        return made[name]

    return folder


@pytest.fixture
def model(folders):
    return attached(folders("llama3_rope_tied"), **BY_ROW)


def attached(folder, *args, gates="gates", **settings):
    return seer.attach(load(folder), folder / gates, *args, **settings)


def lists_of(model, *args, **kwargs):
    with seer.record_lists(model) as passes, torch.no_grad():
        logits = model(*args, **kwargs).logits
    return logits, passes[-1]


def formula(q, k, packing, scale):
    """Scores in float64 by their definition, query by query."""
    scores = torch.full((q.shape[1], packing.num_rows, packing.num_blocks), -math.inf, dtype=torch.float64)
    for b, (nq, nk) in enumerate(zip(packing.q_lens, packing.k_lens)):
        for h in range(q.shape[1]):
            keys = k[packing.cu_k[b]:packing.cu_k[b + 1], h].double()
            for i in range(nq):
                seen, row = nk - nq + i + 1, int(packing.cu_rows[b]) + i // packing.block
                if seen <= 0:
                    continue
                s = keys[:seen] @ q[packing.cu_q[b] + i, h].double() * scale
                m = torch.stack([part.max() for part in s.split(packing.block)])
                m = m - m.logsumexp(0)
                best = scores[h, row, :len(m)].maximum(m)
                scores = scores.index_put((torch.tensor(h), torch.tensor(row), torch.arange(len(m))), best)
    return scores


def close(got, want, limit=1e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=limit, atol=limit)


# ---- Functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("q_lens,k_lens", [((75,), (75,)), ((33, 1, 20), (96, 1, 40))])
def test_lookup_scores(q_lens, k_lens):
    packing = seer.Packing.from_lengths(q_lens, k_lens, BLOCK)
    q, k = (2 * torch.randn(sum(lens), 2, RANK) for lens in (q_lens, k_lens))
    q, k = q.requires_grad_(), k.requires_grad_()
    got, want = seer.lookup_scores(q, k, packing, BLOCK, scale=0.3), formula(q, k, packing, 0.3)
    hidden = want.isinf()
    close(got, want)
    alone = (~hidden).sum(-1, keepdim=True) == 1  # any query of such a row is the largest
    weights = torch.randn(want.shape).masked_fill(hidden | alone, 0)
    grads = [torch.autograd.grad((x.masked_fill(hidden, 0) * weights).sum(), (q, k)) for x in (got, want)]
    for x, y in zip(*grads, strict=True):
        close(x, y)
    assert grads[0][0].abs().max() > 0


def test_lookup_scores_of_plain_tensors():
    q, k = torch.randn(2, 40, 3, RANK), torch.randn(2, 100, 3, RANK)
    run = lambda q, k: seer.lookup_scores(q, k, block=BLOCK, scale=0.25)
    scores = run(q, k)
    packed = seer.lookup_scores(q.flatten(0, 1), k.flatten(0, 1), seer.Packing.from_lengths([40] * 2, [100] * 2), BLOCK, scale=0.25)
    assert scores.shape == (2, 3, 3, 7) and torch.equal(packed.view(3, 2, 3, 7).transpose(0, 1), scores)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(q, k), scores)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(q, k), run(q.bfloat16(), k.bfloat16()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lookups_of_a_gate(dtype):
    gate = strong(seer.Gate(config_with({3: [0, 2, 3]}), 4, 2, 32, layer=3))
    assert seer.Gate(config_with({3: [0]}), 4, 2, 32).lookups(torch.randn(1, 9, 4, 32), torch.randn(1, 9, 2, 32)) is None
    q, k, v = (torch.randn(2, 75, heads, 32).to(dtype) for heads in (4, 2, 2))
    lookups = gate.lookups(q, k)
    for got, x, heads, weight in ((lookups.q, q, [0, 2, 3], gate.lookup_q.weight), (lookups.k, k, [0, 1, 1], gate.lookup_k.weight)):
        want = torch.einsum("bthd,hdr->bthr", x[:, :, heads].double(), weight.double())
        close(got, want.to(dtype), 1e-5 if dtype == torch.float32 else 2 ** -7)
        assert got.dtype == (torch.float32 if dtype == torch.float32 else torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gate.lookups(q, k).q, lookups.q)
    packing = seer.Packing.of_batch(2, 75, block=BLOCK)
    vectors = gate(q, k, *seer.block_angles(1 / 10000 ** (torch.arange(0, 32, 2) / 32), packing))
    scores, plain = seer.gate_scores(vectors, lookups, 0.2), seer.gate_scores(vectors)
    assert torch.equal(scores[:, 1], plain[:, 1])
    assert torch.equal(scores[:, [0, 2, 3]], seer.lookup_scores(lookups.q, lookups.k, block=BLOCK, scale=0.2))
    lists = seer.select_blocks(scores, 0.6, packing)
    run = lambda q, k, v: seer.attention(q, k, v, vectors, 0.6, scale=0.2, lookups=gate.lookups(q, k), return_lists=True)
    o, chosen = run(q, k, v)
    assert torch.equal(chosen.to_mask(), lists.to_mask())
    assert torch.equal(o, seer.block_sparse_attention(q, k, v, lists, scale=0.2))
    assert torch.equal(torch.compile(lambda *x: run(*x)[0], fullgraph=True, backend="aot_eager")(q, k, v), o)
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    packed = vectors._replace(packing=seer.Packing.from_lengths([75] * 2, block=BLOCK))
    assert torch.equal(seer.attention(*flat, packed, 0.6, scale=0.2, lookups=gate.lookups(*flat[:2])).view(o.shape), o)


def test_gradients_of_the_gates_loss():
    """Of the projections, by the formula in float64; not of q and k, nor of the gate's own weights of these heads."""
    gate = strong(seer.Gate(config_with({0: [1, 2]}), 4, 2, 32))
    for parameter in gate.parameters():
        parameter.requires_grad_()
    packing = seer.Packing.from_lengths([75, 40], block=BLOCK)
    plain, rotated = [tuple(torch.randn(115, heads, 32).requires_grad_() for heads in (4, 2)) for _ in range(2)]
    target = torch.rand(4, packing.num_rows, packing.num_blocks) * packing.visible()
    target[:, 5:, 3:] = 0  # of the second sequence
    target = target / target.sum(-1, keepdim=True)
    angles = seer.block_angles(1 / 10000 ** (torch.arange(0, 32, 2) / 32), packing)
    loss, weights, gradients = Learning(skip=0.0).loss(gate, 0, plain, rotated, angles, packing, 0.2, target)
    got = dict(zip(["k", "lookup_q", "lookup_k"], gradients, strict=True))

    exact = [gate.lookup_q.weight.detach().double().requires_grad_(), gate.lookup_k.weight.detach().double().requires_grad_()]
    made = [torch.einsum("thd,hdr->thr", x[:, heads].detach().double(), weight)
            for x, heads, weight in zip(rotated, ([1, 2], [0, 1]), exact, strict=True)]
    with torch.no_grad():
        scores = seer.gate_scores(gate(*plain, *angles, packing))
    scores = scores.index_copy(0, torch.tensor([1, 2]), formula(*made, packing, 0.2).float())
    want = torch.ops.seer.gate_loss(scores, target, packing.cu_rows, packing.cu_blocks, 0.0, "kl")
    close(loss, want)
    for name, gradient in zip(("lookup_q", "lookup_k"), torch.autograd.grad(want, exact), strict=True):
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(got[name].double(), gradient, rtol=1e-3, atol=1e-6)
    assert got["k"][[0, 3]].abs().amin(0).max() > 0 and not got["k"][[1, 2]].any()
    assert all(x.grad is None for x in (*plain, *rotated))


# ---- Models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama3_rope_tied", "qwen3_bias", "phi3"])
def test_layers_choose_by_the_formula(name, folders, monkeypatch):
    """By q and k after RoPE. Other heads, and layers before the first lookup head, choose as gates without."""
    model, ids, calls = attached(folders(name), **BY_ROW), token_ids(), {}
    real = seer._attention.attention

    def watch(q, k, v, vectors, **settings):
        calls[len(calls)] = q, k, vectors
        return real(q, k, v, vectors, **settings)

    monkeypatch.setattr(seer._attention, "attention", watch)
    logits, lists = lists_of(model, ids)
    for number, layer in enumerate(model.seer.layers):
        q, k, vectors = calls[number]
        scores, heads, gate = seer.gate_scores(vectors), HEADS.get(number, []), layer.attn_gate
        if heads:
            a, c = (torch.einsum("thd,hdr->thr", x[:, of].double(), weight.double()) for x, of, weight in (
                (q, heads, gate.lookup_q.weight), (k, [h // 2 for h in heads], gate.lookup_k.weight)))
            scores[heads] = formula(a, c, vectors.packing, layer.scaling).float()
        want = seer.select_blocks(scores, packing=vectors.packing, **BY_ROW)
        assert torch.equal(lists[number].to_mask(), want.to_mask()), number
    plain, plain_lists = lists_of(attached(folders(name), gates="plain", **BY_ROW), ids)
    assert torch.equal(lists[0].to_mask()[[0, 3]], plain_lists[0].to_mask()[[0, 3]])
    assert not torch.equal(lists[0].to_mask()[[1, 2]], plain_lists[0].to_mask()[[1, 2]])
    assert distance(logits, plain) > 100 * BOUND


@torch.no_grad()
def test_chunks_are_the_whole_prompt(folders):
    model, ids = attached(folders("llama3_rope_tied"), 0.7, last_dense_rows=1, prompt_tokens=150), token_ids()
    want = model(ids).logits
    cache, got = None, []
    for part in ids.split((48, 64, 38), 1):
        out = model(part, **{CACHE: cache}, use_cache=True)
        cache = getattr(out, CACHE)
        got.append(out.logits)
    assert distance(torch.cat(got, 1), want) <= BOUND


@torch.no_grad()
def test_a_prefix_off_the_grid(model):
    """Its keys are looked up by what follows; a cache that was cut, too."""
    ids = token_ids(150)
    whole = lists_of(model, ids)[1][0].to_mask()
    cache = getattr(model(ids[:, :43], use_cache=True), CACHE)
    part = lists_of(model, ids[:, 43:], **{CACHE: cache}, use_cache=True)[1][0].to_mask()
    assert torch.equal(part, whole[:, 3:])
    cache.crop(-54)
    part = lists_of(model, ids[:, 96:], **{CACHE: cache})[1][0].to_mask()
    assert torch.equal(part, whole[:, 6:])


@torch.no_grad()
@pytest.mark.parametrize("name,side", [("llama3_rope_tied", "left"), ("llama3_rope_tied", "right"), ("phi4_mini", "left")])
def test_padded_and_packed_texts_are_single_ones(name, side, folders):
    """Also where positions count the padding, or begin anywhere."""
    model, ids = attached(folders(name), 0.7), token_ids(150)
    lens = (70, 1, 60, 19)
    parts = ids.split(lens, 1)
    want = [model(part).logits[0] for part in parts]
    batch, mask = torch.zeros(4, 70, dtype=torch.long), torch.zeros(4, 70, dtype=torch.long)
    for row, part in enumerate(parts):
        at = slice(70 - part.shape[1], None) if side == "left" else slice(0, part.shape[1])
        batch[row, at], mask[row, at] = part[0], 1
    counted = (mask.cumsum(1) - 1).clamp(min=0)  # as generate does it
    for positions in (None, counted, torch.arange(70)[None] + 5):
        got = model(batch, attention_mask=mask, position_ids=positions).logits
        assert all(distance(got[row, mask[row].bool()], want[row]) <= BOUND for row in range(4))
        first = model(batch[:, :48], attention_mask=mask[:, :48], position_ids=None if positions is None else positions[:, :48], use_cache=True)
        with seer.record_lists(model) as passes:
            model(batch[:, 48:], attention_mask=mask, position_ids=None if positions is None else positions[:, 48:], **{CACHE: getattr(first, CACHE)})
            model(ids[:, :70])
        rows = passes[0][0].packing.q_lens[0] // BLOCK + 1
        assert torch.equal(passes[0][0].to_mask()[:, :rows], passes[1][0].to_mask()[:, -rows:])  # of the text without padding
    for shift in (0, 5):
        positions = torch.cat([torch.arange(n) + shift for n in lens])[None]
        assert distance(model(ids, position_ids=positions, use_cache=False).logits[0], torch.cat(want)) <= BOUND


@torch.no_grad()
def test_lists_are_replayed(model, folders):
    ids = token_ids()
    with seer.record_lists(model) as passes:
        want = model(ids).logits
    plain = attached(folders("llama3_rope_tied"), gates="plain", **BY_ROW)
    with seer.replay_lists(plain, passes):
        assert torch.equal(plain(ids).logits, want)


def test_gates_learn_with_the_model(folders):
    """Also where layers run again in the backward."""
    (ids, mask), found = batch_of(100, 70), []
    for checkpoints in (False, True):
        model = attached(folders("llama3_rope_tied"), 0.5, train_gates=True).train()
        if checkpoints:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        loss = model(ids, attention_mask=mask, labels=ids).loss + 10 * model.seer.gate_loss
        loss.backward()
        found.append({name: x.grad for name, x in model.named_parameters() if "lookup" in name})
    assert [name.split("layers.")[1] for name in found[0]] == [
        f"{layer}.self_attn.attn_gate.lookup_{letter}.weight" for layer in HEADS for letter in "qk"]
    for name, gradient in found[0].items():
        assert gradient.abs().amax((1, 2)).min() > 0
        torch.testing.assert_close(found[1][name], gradient)


def test_distillation(folders, tmp_path):
    """Trains the projections, from draws of their own, and leaves a folder; a run goes on with the same lookup heads alone."""
    data = [token_ids(200)[0, at:at + 150] for at in (0, 10, 20, 30)]
    settings = dict(steps=3, sequences=2, learning_rate=0.01, warmup=1, out=tmp_path / "out")
    model = seer.attach(load(folders("llama3_rope_tied")), config_with(HEADS), 0.5)
    first = {name: x.clone() for name, x in model.state_dict().items() if "attn_gate" in name}
    plain = seer.attach(load(folders("llama3_rope_tied")), config_with({}), 0.5).state_dict()
    assert all(torch.equal(x, plain[name]) for name, x in first.items() if "lookup" not in name)
    drawn = [x for name, x in first.items() if "lookup" in name]
    assert all(abs(x.std() / 0.02 - 1) < 0.15 for x in drawn) and not torch.equal(drawn[0], drawn[1])
    rows = seer.distill(model, data, **settings)
    assert rows[-1]["kl_per_row"] < rows[0]["kl_per_row"]
    written = load_file(tmp_path / "out" / "attn_gate_weights.safetensors")
    assert written.keys() == first.keys() and not any(torch.equal(written[name], first[name]) for name in first)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["gate"]["lookup_heads"] == {str(layer): heads for layer, heads in HEADS.items()}
    assert "| Lookup heads | 5, of 16 features |" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ValueError, match="lookup_heads"):
        seer.distill(seer.attach(load(folders("llama3_rope_tied")), config_with({1: [0]}), 0.5), data, **settings)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3_rope_tied", "qwen3_bias", "phi4_mini"])
def test_logits_are_the_programs(name, folders, seer_program, tmp_path):
    folder, ids = folders(name), token_ids()
    (tmp_path / "ids.json").write_text(json.dumps(ids[0].tolist()))
    seer_program("logits", "--model", folder, "--method", "seer", "--gates", folder / "gates", "--ids", tmp_path / "ids.json", "--dtype", "f32",
                 "--sparsity", 0.7, "--out", tmp_path / "logits.safetensors")
    got, want = attached(folder, 0.7)(ids).logits[0], load_file(tmp_path / "logits.safetensors")["logits"]
    assert distance(got, want) <= BOUND
    assert distance(got, attached(folder, 0.7, gates="plain")(ids).logits[0]) > 100 * BOUND


# ---- Folders -------------------------------------------------------------------------------------


@torch.no_grad()
def test_folders(folders, tmp_path):
    folder = folders("qwen3_bias")
    written = json.loads((folder / "gates" / "config.json").read_text())
    assert written["seer_lookup_rank"] == RANK and written["seer_lookup_heads"] == {"0": [1, 2], "2": [0, 1, 3]}
    plain = (folder / "plain" / "config.json").read_text()
    assert "lookup" not in plain and {**json.loads(plain), "seer_lookup_rank": RANK, "seer_lookup_heads": written["seer_lookup_heads"]} == written
    weights = load_file(folder / "gates" / "attn_gate_weights.safetensors")
    names = set(weights) - set(load_file(folder / "plain" / "attn_gate_weights.safetensors"))
    assert names == {f"model.layers.{layer}.self_attn.attn_gate.lookup_{letter}.weight" for layer in HEADS for letter in "qk"}
    model = attached(folder, **BY_ROW)
    assert all(torch.equal(model.state_dict()[name], x) for name, x in weights.items())
    assert model.seer.gate_config.lookup_heads == {0: (1, 2), 2: (0, 1, 3)}
    seer.save_gates(model, tmp_path)
    for name in ("config.json", "attn_gate_weights.safetensors", "README.md"):
        assert (tmp_path / name).read_bytes() == (folder / "gates" / name).read_bytes(), name
    assert model.state_dict().keys() == {*load(folder).state_dict(), *weights}
    assert list(seer.GateConfig(lookup_rank=32, lookup_heads={11: [1], 2: [], 9: [0]}).lookup_heads) == [9, 11]


def test_folders_that_are_refused(folders, tmp_path):
    folder, gates = folders("llama3_rope_tied"), tmp_path / "gates"
    shutil.copytree(folder / "gates", gates)
    config, weights = json.loads((gates / "config.json").read_text()), load_file(gates / "attn_gate_weights.safetensors")
    model = load(folder)

    def changed(message, rank=RANK, heads=None, tensors=weights):
        fields = {**config, "seer_lookup_rank": rank, "seer_lookup_heads": config["seer_lookup_heads"] if heads is None else heads}
        (gates / "config.json").write_text(json.dumps({name: x for name, x in fields.items() if x != "none"}))
        save_file(tensors, gates / "attn_gate_weights.safetensors")
        assert str(gates) in refused(message, seer.attach, model, gates, 0.5)

    changed(r"config.json: the rank of lookup heads is 48, expected 16, 32 or 64 \(seer_lookup_rank\)", rank=48)
    changed("config.json: the rank of lookup heads is '16', expected", rank="16")
    changed("config.json: layers have lookup heads .*, but their rank seer_lookup_rank is missing, expected 16, 32 or 64", rank="none")
    changed(r"the rank 16, but no layer has any \(seer_lookup_heads\)", heads="none")
    changed("the rank of lookup heads is 32, more than the model's head size 16", rank=32)
    for heads in ({}, [[0]], 3):
        changed("config.json: seer_lookup_heads is .*, expected lists of heads by layer", heads=heads)
    for key in ("", "x", "-1", "01", "1.0", " 1"):
        changed(f'seer_lookup_heads has the key "{key}", expected the number of a layer', heads={key: [0]})
    for own in ([], 0, [-1], [0.5], ["0"], [True], None):
        changed("seer_lookup_heads.2 is .*, expected a list of heads", heads={"2": own})
    for own in ([2, 1], [2, 2]):
        changed(f"among the lookup heads of layer 2, {own[1]} comes after 2, expected each head once, in ascending order", heads={"2": own})
    changed("layer 2 has the lookup head 4, but the model has 4 heads a layer, .* another model", heads={"2": [1, 4]})
    changed("layer 3 has lookup heads, but the model has 3 layers, .* another model", heads={"3": [1]})
    name = "model.layers.2.self_attn.attn_gate.lookup_k.weight"
    without = {key: x for key, x in weights.items() if key != name}
    changed(f"tensor {name} is missing, but .*config.json names lookup heads of layer 2; do", tensors=without)
    changed("layers.2.self_attn.attn_gate.lookup_q.weight is there, but .* names no lookup head of layer 2; do", heads={"0": [1, 2]})
    changed(rf"{name} is \[3, 16, 32\], expected \[3, 16, 16\]", tensors={**without, name: torch.zeros(3, 16, 32)})
    changed(r"layers.0.*lookup_q.weight is \[2, 16, 16\], expected \[1, 16, 16\]", heads={"0": [1], "2": [0, 1, 3]})
    changed(f"{name} has NaN", tensors={**without, name: torch.full((3, 16, 16), math.nan)})
    assert not hasattr(model.model.layers[0].self_attn, "attn_gate")


def test_configs_and_arguments_that_are_refused(folders):
    for heads in ([[0]], {0: 1}, {0: "1"}, {"0": [1]}, {-1: [1]}):
        refused("lookup_heads is .*, expected lists of heads by layer", seer.GateConfig, lookup_rank=16, lookup_heads=heads)
    refused("the lookup heads of layer 1 are .*, expected whole numbers", seer.GateConfig, lookup_rank=16, lookup_heads={1: [0.5]})
    refused("1 comes after 3", seer.GateConfig, lookup_rank=16, lookup_heads={1: [3, 1]})
    refused("their rank seer_lookup_rank is missing", seer.GateConfig, lookup_heads={1: [3]})
    refused("more than the model's head size 16", seer.Gate, seer.GateConfig(lookup_rank=32, lookup_heads={0: [1]}), 4, 2, 16)
    refused("the lookup head 4, but the model has 4 heads", seer.Gate, config_with({0: [4]}), 4, 2, 16)
    refused("layer 5 has lookup heads, but the model has 3 layers", seer.attach, load(folders("llama3_rope_tied")), config_with({5: [0]}), 0.5)
    q, k, v = (torch.randn(1, 70, heads, 16) for heads in (4, 2, 2))
    gate = strong(seer.Gate(config_with({0: [1, 2]}), 4, 2, 16))
    lookups, packing = gate.lookups(q, k), seer.Packing.of_batch(1, 70, block=BLOCK)
    vectors = gate(q, k, *seer.block_angles(torch.ones(8), packing))
    refused(r"lookup_scores: q has 4 lookup heads, k 2, want as many", seer.lookup_scores, q, k, scale=0.2)
    refused("lookup_scores: k is bfloat16 .*, as q, float32", seer.lookup_scores, q, q.bfloat16(), scale=0.2)
    refused("lookup_scores: q is packed, .*: say where", seer.lookup_scores, q[0], q[0], scale=0.2)
    refused("gate_scores: lookups want scale", seer.gate_scores, vectors, lookups)
    wrong = lambda **change: dict(vectors=vectors, lookups=lookups._replace(**change))
    for message, change in ((r"attention, lookups: heads is int64 \[1\] on cpu, want int64 \[2\]", dict(heads=torch.tensor([1]))),
                            ("heads is float32", dict(heads=torch.ones(2))),
                            (r"attention, lookups: q and k have \(1, 69, 70\) .* the vectors were made for \(1, 70, 70\)", dict(q=lookups.q[:, 1:]))):
        refused(message, seer.attention, q, k, v, sparsity=0.5, **wrong(**change))
