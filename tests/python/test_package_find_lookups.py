"""seer.find_lookup_heads: the heads that the program finds, with the same first projections; what it leaves, and what it refuses."""
import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import seer
from conftest import BUILD, ROOT
from model_families import create, load, token_ids
from seer._head_needs import neediest

BLOCK = 16
REFERENCE = ROOT / "assets" / "reference"
ROWS = [token_ids(310)[0, begin:begin + 250] for begin in range(0, 60, 10)]  # of 16 blocks


@pytest.fixture(scope="session")
def seer_program(seer):
    return seer


def attached(model, **settings):
    """With gates whose scores differ."""
    torch.manual_seed(3)
    seer.attach(model, seer.GateConfig(block_size=BLOCK), 0.5, **settings)
    for layer in model.seer.layers:
        torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
    return model


@pytest.fixture
def model(tmp_path):
    return attached(create("llama3_rope_tied", tmp_path / "model"))


def products(q, k):
    """What projections [L, D, r] make of q k: [L, D, D]."""
    return q.double() @ k.double().transpose(1, 2)


@pytest.mark.parametrize("steps", [0, 4])
def test_heads_and_projections_are_the_programs(steps, seer_program, tmp_path):
    """As they begin, and trained; three heads by their share and by their cost."""
    flag, how_many = ("--lookup-cost", {"cost": 3.5 / 32 * 16 / (2 * 64 * 0.1)}) if steps else ("--lookup-heads", {"share": 0.1})
    words = (BUILD / "default_text.txt").read_text().split()[21_000:]  # where three heads lose much more than the others
    texts = [" ".join(words[begin:begin + 300]) for begin in range(0, 1500, 300)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model, out = AutoModelForCausalLM.from_pretrained(REFERENCE).float(), tmp_path / "out"
    seer.attach(model, seer.GateConfig(block_size=BLOCK), 0.9, seed=2)
    seer.save_gates(model, tmp_path / "plain")
    seer_program("distill", "--model", REFERENCE, "--gates", tmp_path / "plain", "--data", tmp_path / "text.jsonl", "--cache", tmp_path / "cache",
                 flag, *how_many.values(), "--lookup-windows", 2, "--lookup-rank", 16, "--lookup-steps", steps or 1, "--lookup-learning-rate",
                 0.02 if steps else 1e-12,
                 "--length", 300, "--sequences", 1, "--seed", 3, "--device", "cpu", "--dtype", "f32", "--threads", 1, "--out", out)
    windows = seer.PackedWindows(texts, AutoTokenizer.from_pretrained(REFERENCE), 300, seed=3)
    # The program's windows are those behind the 500 steps that gates would have been trained for.
    lost = seer.find_lookup_heads(model, windows, **how_many, first=500, windows=2, rank=16, seed=3)
    first = {name: x.clone() for name, x in model.named_parameters() if "lookup" in name}
    if steps:
        rows = seer.distill(model, windows, steps=steps, sequences=1, learning_rate=0.02, lookups_only=True)
        theirs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for row, their in zip(rows, theirs, strict=True):
            assert all(row[name] == pytest.approx(their[name], rel=1e-3) for name in ("loss", "kl_per_row", "grad_norm", "lr")), (row, their)
        assert not any(torch.equal(x, model.get_parameter(name)) for name, x in first.items())
    seer.save_gates(model, tmp_path / "mine")
    mine, theirs = (json.loads((folder / "heads.json").read_text()) for folder in (tmp_path / "mine", out))
    assert mine["lookup_heads"] == theirs["lookup_heads"] and sum(map(len, mine["lookup_heads"])) == 3
    for name, of in (("mine", mine["lost"]), ("returned", lost)):
        torch.testing.assert_close(torch.as_tensor(of, dtype=torch.float64), torch.tensor(theirs["lost"], dtype=torch.float64), rtol=0, atol=2e-6, msg=name)
    assert lost.max() > 0.05
    weights = [load_file(folder / "attn_gate_weights.safetensors") for folder in (tmp_path / "mine", out)]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        if name.endswith("lookup_q.weight"):
            got, want = (products(of[name], of[name.replace("lookup_q", "lookup_k")]) for of in weights)
            assert (got - want).norm() <= 1e-3 * want.norm() and want.norm() > 1
        elif "lookup" not in name:
            assert torch.equal(weights[0][name], weights[1][name])
    if steps:
        return
    left = seer.find_lookup_heads(model, windows, 0, first=500, windows=2, seed=3)  # by tokens
    for layer, of in enumerate(mine["lookup_heads"]):
        others = [head for head in range(4) if head not in of]
        torch.testing.assert_close(left[layer, others], lost[layer, others])
        assert torch.all(left[layer, of] <= lost[layer, of])
    assert left.sum() < 0.9 * lost.sum()


def test_the_model_has_them_and_is_else_as_it_was(model, tmp_path):
    """Also where nothing may be recorded for a gradient; of two datasets by weights."""
    ids, settings = token_ids(150), model.seer.settings
    model.train()
    with torch.no_grad():
        want = model(ids).logits
    with seer.record_lists(model) as passes, torch.inference_mode():
        alone = seer.find_lookup_heads(model, {"a": ROWS[:3], "b": ROWS[3:]}, 0, weights=[2, 1], windows=3)
        assert not model.seer.gate_config.lookup_heads and model.seer.first == "seed 1" and model.seer.needs is None
        lost = seer.find_lookup_heads(model, {"a": ROWS[:3], "b": ROWS[3:]}, 0.25, weights=[2, 1], windows=3, rank=16)
    assert not passes and model.seer.settings is settings and model.training
    assert torch.equal(alone, lost) and lost.shape == (3, 4) and lost.dtype == torch.float64 and lost.min() >= 0
    heads = model.seer.gate_config.lookup_heads
    assert sum(map(len, heads.values())) == 3
    chosen = torch.zeros(3, 4, dtype=torch.bool)
    for layer, of in heads.items():
        chosen[layer, list(of)] = True
        gate = model.seer.layers[layer].attn_gate
        assert gate.config.lookup_heads == heads and not gate.lookup_q.weight.requires_grad
        assert gate.lookup_heads.tolist() == list(of) and gate.lookup_kv_heads.tolist() == [head // 2 for head in of]
        # All features: the product of q and k itself.
        assert (products(gate.lookup_q.weight, gate.lookup_k.weight) - torch.eye(16)).abs().max() < 1e-3
    assert lost[chosen].min() >= lost[~chosen].max()
    with seer.record_lists(model) as passes, torch.no_grad():
        sparse = model(ids).logits
    assert len(passes) == 1 and not torch.equal(sparse, want)
    seer.save_gates(model, tmp_path / "gates")
    again = seer.attach(load(tmp_path / "model"), tmp_path / "gates", 0.5)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, sparse)
    seer.detach(model)
    assert not any("attn_gate" in name for name, _ in model.named_parameters())


def test_a_cost_says_how_many(model, tmp_path):
    """A head of 12 costs 16 / (2 x 16 x 0.2) / 12 of sparse attention at a density of 0.2."""
    of_one = 16 / (2 * 16 * 0.2) / 12
    for cost, count in ((3 * of_one, 3), (2.99 * of_one, 2)):
        model = attached(load(tmp_path / "model"))
        seer.find_lookup_heads(model, ROWS, cost=cost, windows=1, rank=16, sparsity=0.8)
        assert sum(map(len, model.seer.gate_config.lookup_heads.values())) == count
    model = attached(load(tmp_path / "model"))
    with pytest.raises(ValueError, match="cost is 0.1, less than one of the 12 heads costs, which is 0.208333"):
        seer.find_lookup_heads(model, ROWS, cost=0.1, rank=16, sparsity=0.8)
    with pytest.raises(ValueError, match="share is 0.1 and cost is 0.5, which both say how many heads: give one"):
        seer.find_lookup_heads(model, ROWS, 0.1, cost=0.5, rank=16)
    for cost in (0, -1, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match=f"cost is {cost}, want more than 0, a share of the sparse attention's work"):
            seer.find_lookup_heads(model, ROWS, cost=cost, rank=16)


def test_they_are_trained(model, tmp_path):
    """And a script that begins anew goes on with its run; another seed is another run."""
    def run(model, seed, only=True):
        seer.find_lookup_heads(model, ROWS, 0.25, windows=2, rank=16, seed=seed)
        before = {name: x.clone() for name, x in model.named_parameters() if "attn_gate" in name}
        rows = seer.distill(model, ROWS[:1], lookups_only=only, steps=3, sequences=1, learning_rate=0.002, warmup=1, out=tmp_path / "out")
        return rows, before

    rows, before = run(model, 1)
    assert sum("lookup" in name for name in before) >= 2
    assert all(torch.equal(x, model.get_parameter(name)) == ("lookup" not in name) for name, x in before.items())
    assert not any(x.requires_grad or x.grad is not None for x in model.seer.layers[0].attn_gate.parameters())
    assert rows[-1]["kl_per_row"] < rows[0]["kl_per_row"]
    found = json.loads((tmp_path / "out" / "heads.json").read_text())
    assert found["lookup_heads"] == [list(model.seer.gate_config.lookup_heads.get(layer, ())) for layer in range(3)]
    assert run(attached(load(tmp_path / "model")), 1)[0] == rows
    with pytest.raises(ValueError, match="first_gates is .*, lookup heads of windows 0 to 1 of .*, seed 2"):
        run(attached(load(tmp_path / "model")), 2)
    with pytest.raises(ValueError, match="settings.lookups_only is not there, was there"):
        run(attached(load(tmp_path / "model")), 1, only=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "heads.json").write_text("mine")
    with pytest.raises(ValueError, match="holds heads.json, which no run of seer.distill has made"):
        seer.distill(model, ROWS, steps=1, sequences=1, out=tmp_path / "other")


def test_gates_that_learn_with_the_model(tmp_path):
    model = attached(create("llama3_rope_tied", tmp_path), train_gates=True)
    seer.find_lookup_heads(model, ROWS, 0.1, windows=1, rank=16)
    model(ROWS[0][None, :100])
    model.seer.gate_loss.backward()
    trained = [x for name, x in model.named_parameters() if "lookup" in name]
    assert len(trained) == 2 and all(x.grad.abs().max() > 0 for x in trained)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(gates_alone):
    """In bf16: near what a CPU finds in float32, and trained there."""
    windows = seer.PackedWindows([(BUILD / "default_text.txt").read_text()[:60_000]], AutoTokenizer.from_pretrained(REFERENCE), 2048)
    find = lambda model: seer.find_lookup_heads(seer.attach(model, gates_alone, 0.9), windows, 0.1, windows=2)
    exact, model = (AutoModelForCausalLM.from_pretrained(REFERENCE).to(device, dtype) for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)))
    want, got = find(exact), find(model)
    assert got.device.type == "cpu" and (got - want).norm() < 0.2 * want.norm()
    assert model.seer.gate_config.lookup_heads == exact.seer.gate_config.lookup_heads == {1: (1,), 6: (2,), 7: (2,)}
    left = seer.find_lookup_heads(model, windows, 0, windows=2)
    assert left.sum() < 0.9 * got.sum()
    rows = seer.distill(model, windows, lookups_only=True, steps=2, sequences=1)
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    with torch.no_grad():
        model.model.layers[2].self_attn.q_proj.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="the attention of layer 2 is not finite: try a model in bfloat16 or float32"):
        seer.find_lookup_heads(model, windows, 0, windows=1)


def test_pictures_name_them(model):
    pytest.importorskip("matplotlib")
    seer.find_lookup_heads(model, ROWS, 0.1, windows=1, rank=16)
    (layer, (head,)), = model.seer.gate_config.lookup_heads.items()
    figure = seer.plot_heads(model, ROWS[0], [(layer, head), (layer, (head + 1) % 4)])
    titles = [axis.get_title("left") for axis in figure.axes if axis.get_title("left")]
    assert titles == [f"Layer {layer}, lookup head {head}", f"Layer {layer}, head {(head + 1) % 4}"]


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="gives every layer the window")
def test_layers_whose_window_hides_keys(tmp_path):
    model = attached(create("qwen2_window_layers", tmp_path / "model"))
    lost = seer.find_lookup_heads(model, ROWS, 1.0, windows=1, rank=16)
    assert not lost[0].isnan().any() and lost[1:].isnan().all()
    assert model.seer.gate_config.lookup_heads == {0: tuple(head for head in range(4) if lost[0, head] > 0)}
    seer.save_gates(model, tmp_path / "gates")
    assert json.loads((tmp_path / "gates" / "heads.json").read_text())["lost"][1:] == [[None] * 4] * 2


def test_the_neediest():
    lost = torch.tensor([[0.0, 0.5, 0.1], [math.nan] * 3, [0.5, 0.2, 0.5]])
    assert neediest(lost, 1) == {0: [1]} and neediest(lost, 3) == {0: [1], 2: [0, 2]}
    assert neediest(lost, 99) == {0: [1, 2], 2: [0, 1, 2]} and neediest(lost[:1, :1], 1) == {}


def test_what_is_refused(model, tmp_path):
    def refused(message, *args, **kwargs):
        with pytest.raises(ValueError, match=f"seer.find_lookup_heads: {message}"):
            seer.find_lookup_heads(model, *args, **kwargs)

    computed = model.model.register_forward_pre_hook(lambda *args: pytest.fail("something was computed"))
    refused(r"sequences have 240 tokens, want 241 or more: 16 blocks of 16", [ROWS[0][:240]], rank=16)
    for share in (-0.1, 1.1, math.nan, "0.1"):
        refused(f"share is {share}, want a share of all heads, 0 to 1; 0 measures alone", ROWS, share)
    refused("windows is 0, want a whole number, 1 or more", ROWS, windows=0)
    refused("first is 0.5, want a whole number, 0 or more", ROWS, first=0.5)
    refused("sparsity is 1, want 0 or more, and less than 1", ROWS, sparsity=1)
    refused("rank is 32, want 16, of heads of 16 features", ROWS)
    refused("rank is 20, want 16, of heads", ROWS, rank=20)
    refused("the dataset is empty", [], rank=16)
    refused(r"weights are \[1\], want 2 above 0", {"a": ROWS, "b": ROWS}, rank=16, weights=[1])
    refused("sequence 0 of the dataset is a str, want token ids", ["a"], rank=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        refused("this is one of 2 processes", ROWS, rank=16)
    with pytest.raises(ValueError, match="lookups_only=True, but the gates have no lookup heads: seer.find_lookup_heads gives them some"):
        seer.distill(model, ROWS, lookups_only=True)
    computed.remove()
    refused(r"sequence 1 of the dataset is int64 \[249\], want token ids, 250 in one axis", [ROWS[0], ROWS[1][1:]], rank=16, windows=2)
    refused(r"no head loses anything by these gates, so they need no lookup heads \(at sparsity 0\)", ROWS, rank=16, windows=1, sparsity=0)
    assert not model.seer.gate_config.lookup_heads
    seer.find_lookup_heads(model, ROWS, windows=1, rank=16)
    refused("the gates have 1 lookup head already: attach gates without any, or take share=0", ROWS, rank=16)
    with pytest.raises(ValueError, match="the model has no gates: call seer.attach"):
        seer.find_lookup_heads(seer.detach(model), ROWS)
    model = attached(create("mistral_window", tmp_path / "window"))
    with pytest.warns(UserWarning, match="seer.find_lookup_heads: sequences have 600 tokens, the model was made for 512"):
        refused("every layer has a sliding", [torch.cat([ROWS[0]] * 3)[:600]], windows=1, rank=16)
    refused("every layer has a sliding window shorter than 250 tokens: no gate chooses blocks", ROWS, windows=1, rank=16)
