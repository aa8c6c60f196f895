"""seer.plot_heads: the maps are the model's own, and the figure shows them."""
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import seer
from conftest import ROOT
from model_families import create, load, token_ids
from seer import pictures
from seer._head_needs import RECENT

pytest.importorskip("matplotlib")
BLOCK = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def model(folder):
    return attached(create("llama3_rope_tied", folder))


def attached(model):
    torch.manual_seed(3)
    seer.attach(model, seer.GateConfig(block_size=BLOCK), 0.6, sink_blocks=1)
    for layer in model.seer.layers:
        torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
    return model


def block_max(weights):
    """[H, T, T] -> the largest weight of each block, rows summing to 1."""
    most = F.max_pool2d(weights, BLOCK, ceil_mode=True)
    return most / most.sum(-1, keepdim=True)


@torch.no_grad()
def test_maps_are_those_of_the_model(model, folder):
    ids = token_ids(150)
    places = [(2, 1), (0, 3), (0, 0)]
    maps = pictures.head_maps(model, ids, places)
    assert [(x.layer, x.head) for x in maps] == places
    dense = load(folder)
    dense.set_attn_implementation("eager") if hasattr(dense, "set_attn_implementation") else setattr(dense.config, "_attn_implementation", "eager")
    weights = dense(ids, output_attentions=True).attentions
    for x in maps:
        torch.testing.assert_close(x.truth, block_max(weights[x.layer][0])[x.head], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(x.gate.sum(-1), torch.ones(10))
        assert not x.gate.triu(1).any()
        kept = x.chosen.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:150, :150]
        assert x.recall == pytest.approx((weights[x.layer][0][x.head] * kept).sum(-1).mean().item(), abs=1e-4)
    with seer.record_lists(model) as passes:
        model(ids)
    chosen = passes[0][0].to_mask().float()  # of the first layer, whose input is the same
    assert torch.equal(maps[1].chosen, chosen[3]) and torch.equal(maps[2].chosen, chosen[0])
    for row in range(2, 10):  # apart from forced blocks, the gate's best
        kept = maps[1].chosen[row, 1:row].bool()
        gate = maps[1].gate[row, 1:row]
        assert not kept.any() or kept.all() or gate[kept].min() >= gate[~kept].max()


@torch.no_grad()
def test_heads_are_chosen_by_what_a_gate_has_to_find(model):
    ids = token_ids(150)[0]
    every = {(x.layer, x.head): x for x in pictures.head_maps(model, ids, [(layer, head) for layer in range(3) for head in range(4)])}
    distant = lambda x: sum(x.truth[row, column].item() for row in range(10) for column in range(1, row - RECENT + 1))
    for number, layers in ((1, [2]), (2, [1, 2]), (9, [0, 1, 2])):
        found = pictures.head_maps(model, ids, number)
        assert [x.layer for x in found] == layers
        assert [x.head for x in found] == [max(range(4), key=lambda head: distant(every[layer, head])) for layer in layers]


@torch.no_grad()
def test_the_model_is_left_as_it_was(model, monkeypatch):
    ids = token_ids(150)
    want, settings = model(ids).logits, model.seer.settings
    with seer.record_lists(model) as passes:
        model(ids)
        pictures.head_maps(model, ids[:, :100], 1)
        assert len(passes) == 1
    with seer.replay_lists(model, passes):
        pictures.head_maps(model, ids[:, :100], 1)
        assert torch.equal(model(ids).logits, want)
    with monkeypatch.context() as patch, pytest.raises(TypeError):  # within a layer
        patch.setattr(pictures, "gate_scores", None)
        pictures.head_maps(model, ids, 1)
    assert torch.equal(model(ids).logits, want) and model.seer.settings is settings


@torch.no_grad()
def test_the_figure(model, tmp_path, monkeypatch):
    ids = token_ids(150)
    figure = seer.plot_heads(model, ids, [(2, 1), (0, 3)])
    maps = pictures.head_maps(model, ids, [(2, 1), (0, 3)])
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 6
    seen = torch.ones(10, 10).tril().bool()
    for at, of in enumerate(maps):
        for panel, want in zip(panels[3 * at:], (of.truth.clamp(min=1e-4), of.gate.clamp(min=1e-4), of.chosen)):
            got = torch.from_numpy(panel.images[0].get_array().filled(float("nan")))
            torch.testing.assert_close(got[seen], want[seen])
            assert got[~seen].isnan().all() and panel.images[0].get_extent() == [0, 160, 160, 0]
        line = panels[3 * at:3 * at + 3]
        assert line[0].get_title("left") == f"Layer {of.layer}, head {of.head}"
        density = of.chosen.sum() / 55
        assert line[2].get_title("right") == f"{of.recall:.0%} of the attention in {density:.1%} of the blocks"
    assert len({panel.images[0].norm.vmin for panel in panels if panel.images[0].norm.vmax == 1}) == 2
    figure.savefig(tmp_path / "heads.png")
    assert (tmp_path / "heads.png").stat().st_size > 10000 and figure._repr_png_().startswith(b"\x89PNG")
    assert figure.get_suptitle() == "150 tokens in blocks of 16, nz_ratio at sparsity 0.6"
    # Several blocks in a cell.
    monkeypatch.setattr(pictures, "MOST_CELLS", 4)
    panels = seer.plot_heads(model, ids, [(2, 1)]).axes
    truth, chosen = (panels[i].images[0].get_array() for i in (0, 2))
    assert truth.shape == (4, 4)
    assert truth[2, 1] == pytest.approx(max(maps[0].truth[6:9, 3:6].max().item(), 1e-4))
    assert chosen[2, 1] == pytest.approx(maps[0].chosen[6:9, 3:6].mean().item())
    assert chosen[3, 3] == pytest.approx(maps[0].chosen[9, 9].item()) and chosen[1, 1] == pytest.approx(maps[0].chosen[3:6, 3:6].sum().item() / 6)


@torch.no_grad()
def test_what_is_refused(model, tmp_path, monkeypatch):
    ids = token_ids(150)
    for args, message in (((ids.repeat(2, 1),), r"ids is int64 \[2, 150\], want the tokens of one text"), ((ids[:, :16],), "the text has 16 tokens, want more"),
                          ((ids, [(0, 4)]), "there is no layer 0, head 4: the model has 3 layers of 4 heads"), ((ids, [(3, 0)]), "there is no layer 3"),
                          ((ids.float(),), "ids is float32")):
        with pytest.raises(ValueError, match=f"seer.plot_heads: {message}"):
            seer.plot_heads(model, *args)
    window = attached(create("mistral_window", tmp_path))
    with pytest.raises(ValueError, match="nothing to draw: a sliding window hides keys in every layer"):
        seer.plot_heads(window, ids)
    with pytest.raises(ValueError, match="layer 1 has a sliding window of 37 tokens, shorter than the text"):
        seer.plot_heads(window, ids, [(1, 0)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="seer.plot_heads: matplotlib is missing: pip install matplotlib"):
        seer.plot_heads(model, ids)


def test_matplotlib_is_imported_by_the_call_alone():
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'python')!r}); import seer; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
