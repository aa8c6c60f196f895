"""Pictures of a model's heads: true attention, what the gate thinks of it, which blocks were chosen."""
from __future__ import annotations

import functools
import io
from typing import NamedTuple, Sequence, Union

import torch
import torch.nn.functional as F

from ._attention import Layer
from ._dense_pass import see_layers
from ._head_needs import far_blocks
from .attach import of_model
from .ops import block_sparse_attention, gate_scores, pooled_map, select_blocks
from .packing import counted

MOST_CELLS = 256  # of a panel's side
FAINTEST = 1e-4   # share of a row that is told from none
# A ramp whose lightness grows evenly: navy, violet, orange, cream.
HEAT = ("#0a0828", "#55146e", "#b93755", "#f58c28", "#fcfac8")
PANEL, WIDTH, ABOVE, BETWEEN, BELOW, LEFT, APART = 2.5, 8.85, 0.95, 0.65, 1.15, 0.65, 0.25  # inches
COMPUTED, LEFT_OUT, UNSEEN, PALE = "#f19b51", "#0a0828", "#e2e2e8", "#646470"


class HeadMaps(NamedTuple):
    """One head's maps over blocks, float32 [rows, blocks] on the CPU."""

    layer: int
    head: int
    truth: torch.Tensor   # the largest attention weight of each block, rows sum to 1
    gate: torch.Tensor    # softmax of the gate's scores
    chosen: torch.Tensor  # 1 where the block is computed
    recall: float         # share of the attention in the chosen blocks, mean over queries, as in `seer eval recall`


def plot_heads(model: torch.nn.Module, ids: torch.Tensor,
               heads: Union[int, Sequence[tuple[int, int]]] = 4) -> "matplotlib.figure.Figure":  # noqa: F821
    """A matplotlib Figure with a row for each head: true attention by blocks, the gate's scores (of lookup heads those by their tokens), the
    blocks chosen.

    model: after seer.attach; its present settings choose. ids: int64 [tokens] or [1, tokens], longer than a block. heads: pairs
    (layer, head), or how many: then from as many layers, spread over the model, the head that looks least at the first block and the
    latest ones, whose blocks a gate has to find. The model runs densely, so that each gate is shown the true q and k of its layer.

    Of long texts a cell stands for several blocks: the largest share among them, and how many of them are computed. Nothing is
    shown or written: return it from a notebook's cell, or call savefig. ImportError: no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("seer.plot_heads: matplotlib is missing: pip install matplotlib") from None
    maps = head_maps(model, ids, heads)
    figure = Figure(figsize=(WIDTH, ABOVE + len(maps) * (PANEL + BETWEEN) - BETWEEN + BELOW), dpi=120)
    draw(figure, maps, ids.numel(), of_model(model))
    figure._repr_png_ = functools.partial(_png, figure)  # notebooks show it without pyplot, too
    return figure


def head_maps(model, ids: torch.Tensor, heads: Union[int, Sequence[tuple[int, int]]]) -> list[HeadMaps]:
    """What `plot_heads` draws."""
    attachment = of_model(model)
    block, count = attachment.gate_config.block_size, len(attachment.layers)
    if not isinstance(ids, torch.Tensor):
        raise ValueError(f"seer.plot_heads: ids is of class {type(ids).__name__}, want a tensor of the tokens of one text")
    if ids.dim() not in (1, 2) or ids.dim() == 2 and ids.shape[0] != 1 or ids.is_floating_point():
        raise ValueError(f"seer.plot_heads: ids is {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}, want the tokens of one text, [tokens] or "
                         "[1, tokens]")
    if ids.numel() <= block:
        raise ValueError(f"seer.plot_heads: the text has {counted(ids.numel(), 'token')}, want more than one block of {block}")
    if isinstance(heads, int):
        number = max(1, min(heads, count))
        wanted = {layer: None for layer in range(count) if (layer + 1) * number // count > layer * number // count}
    else:
        wanted, heads = {}, list(heads)
        if not heads or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in heads):
            raise ValueError(f"seer.plot_heads: heads is {heads!r}, want pairs (layer, head), or how many")
        for layer, head in heads:
            if not 0 <= layer < count or not 0 <= head < attachment.layers[layer].config.num_attention_heads:
                raise ValueError(f"seer.plot_heads: there is no layer {layer}, head {head}: the model has {counted(count, 'layer')} of "
                                 f"{counted(attachment.layers[0].config.num_attention_heads, 'head')}")
            wanted.setdefault(layer, []).append(head)
    found: list[HeadMaps] = []

    def see(layer, window):
        if layer.number in wanted and window is None:
            found.extend(maps_of(layer, wanted[layer.number], attachment.settings))
        elif wanted.get(layer.number):
            raise ValueError(f"seer.plot_heads: layer {layer.number} has a sliding window of {window} tokens, shorter than the text: it is dense")
        return layer.dense(window)

    see_layers(model, ids, see)
    if not found:
        raise ValueError("seer.plot_heads: nothing to draw: a sliding window hides keys in every layer")
    if isinstance(heads, int):
        return found
    by_place = {(maps.layer, maps.head): maps for maps in found}
    return [by_place[place] for place in map(tuple, heads)]


def maps_of(layer: Layer, heads, settings: dict) -> list[HeadMaps]:
    """Of the heads named, or of one (None)."""
    part = layer.of.on(None, ("part", "all"), lambda: layer.of.part("all", layer.block))
    packing = layer.packing(part, "all")
    q, k, v = layer.packed(part, "all")
    lse, truth = pooled_map(q, k, packing, layer.block, scale=layer.scale, normalise=True)
    scores = gate_scores(layer.choose(part, "all"), layer.gate.lookups(*layer.rotated(part, "all")), layer.scale)
    rule = {name: settings[name] for name in ("sparsity", "rule", "strength", "sink_blocks", "local_blocks", "last_dense_rows")}
    lists = select_blocks(scores, packing=packing, **rule).per_query_head(scores.shape[0])
    chosen, kept = lists.to_mask(), block_sparse_attention(q, k, v, lists, layer.scale, return_lse=True)[1]
    recall = (kept - lse).exp().mean(-1)
    if heads is None:
        heads = [int(distant_mass(truth).argmax())]
    return [HeadMaps(layer.number, head, truth[head].cpu(), scores[head].softmax(-1).cpu(), chosen[head].float().cpu(), float(recall[head]))
            for head in heads]


def distant_mass(maps: torch.Tensor) -> torch.Tensor:
    """How much of each head's map [H, rows, blocks] lies away from the first block and the latest: [H]."""
    return (maps * far_blocks(*maps.shape[1:], maps.device)).sum((1, 2))


# ---- Drawing -------------------------------------------------------------------------------------


def draw(figure, maps: list[HeadMaps], tokens: int, attachment) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.patches import Patch
    from matplotlib.ticker import FixedLocator, FuncFormatter
    block, blocks = attachment.gate_config.block_size, maps[0].truth.shape[1]
    factor = -(-blocks // MOST_CELLS)
    visible = torch.ones(blocks, blocks).tril()
    share = pooled(visible, factor, F.avg_pool2d)
    seen = share > 0
    side = share.shape[0] * factor * block
    heat = LinearSegmentedColormap.from_list("heat", HEAT)
    two = LinearSegmentedColormap.from_list("chosen", (LEFT_OUT, COMPUTED))
    high = figure.get_figheight()
    axes = figure.subplots(len(maps), 3, squeeze=False, sharex=True, sharey=True, gridspec_kw=dict(
        left=LEFT / WIDTH, right=(LEFT + 3 * PANEL + 2 * APART) / WIDTH, bottom=BELOW / high, top=1 - ABOVE / high, wspace=APART / PANEL,
        hspace=BETWEEN / PANEL))
    step = 1
    while 4 * step < tokens:
        step *= 2
    for line, of in zip(axes, maps):
        density = float(of.chosen.sum() / visible.sum())
        for panel, values in zip(line, (of.truth, of.gate, of.chosen)):
            is_choice = values is of.chosen
            cells = pooled(values, factor, F.avg_pool2d) / share if is_choice else pooled(values, factor, F.max_pool2d).clamp(min=FAINTEST)
            image = panel.imshow(cells.masked_fill(~seen, float("nan")).numpy(), cmap=two if is_choice else heat, interpolation="nearest",
                                 extent=(0, side, side, 0), norm=None if is_choice else LogNorm(FAINTEST, 1), vmin=0 if is_choice else None,
                                 vmax=1 if is_choice else None)
            panel.set_facecolor(UNSEEN)
            panel.xaxis.set_major_locator(FixedLocator(range(0, tokens + 1, step)))
            panel.yaxis.set_major_locator(FixedLocator(range(0, tokens + 1, step)))
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_formatter(FuncFormatter(tokens_text))
            panel.tick_params(colors=PALE, labelsize=8, labelbottom=True, length=3)
            panel.spines[:].set_visible(False)
            if not is_choice:
                ramp = image
        is_lookup = of.head in attachment.gate_config.lookup_heads.get(of.layer, ())
        line[0].set_title(f"Layer {of.layer}, {'lookup ' if is_lookup else ''}head {of.head}", loc="left", fontsize=10, fontweight="bold")
        line[2].set_title(f"{of.recall:.0%} of the attention in {density:.1%} of the blocks", loc="right", fontsize=10)
        line[0].set_ylabel("query token", color=PALE, fontsize=8)
    for panel, name in zip(axes[0], ("True attention", "What the gate thinks", "Blocks computed")):
        panel.annotate(name, (0.5, 1), (0, 24), xycoords="axes fraction", textcoords="offset points", ha="center", fontsize=11)
    for panel in axes[-1]:
        panel.set_xlabel("key token", color=PALE, fontsize=8)
    bar = figure.colorbar(ramp, cax=figure.add_axes((LEFT / WIDTH, 0.52 / high, (2 * PANEL + APART) / WIDTH, 0.12 / high)), orientation="horizontal")
    bar.set_label("share of a query block's attention", fontsize=9)
    bar.set_ticks([FAINTEST, 1e-3, 1e-2, 1e-1, 1], labels=["0.01 %", "0.1 %", "1 %", "10 %", "100 %"], fontsize=8, color=PALE)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    keys = [Patch(color=color, label=label) for color, label in ((COMPUTED, "computed"), (LEFT_OUT, "left out"), (UNSEEN, "after the query"))]
    figure.legend(handles=keys, loc="center", bbox_to_anchor=((LEFT + 2.5 * PANEL + 2 * APART) / WIDTH, 0.58 / high), ncols=3, frameon=False,
                  fontsize=8, handlelength=1, handleheight=1, handletextpad=0.5, columnspacing=1)
    several = "" if factor == 1 else f", {factor} x {factor} blocks a cell"
    figure.suptitle(f"{tokens:,} tokens in blocks of {block}, {rule_text(attachment.settings)}{several}", fontsize=11, x=LEFT / WIDTH, y=1 - 0.12 / high, ha="left",
                    va="top")


def pooled(values: torch.Tensor, factor: int, pool) -> torch.Tensor:
    """Several blocks as one cell; at the edges those that there are."""
    more = dict(count_include_pad=False) if pool is F.avg_pool2d else {}
    return pool(values[None], factor, ceil_mode=True, **more)[0] if factor > 1 else values


def tokens_text(tokens: float, position=None) -> str:
    """0, 512, 4k."""
    return f"{int(tokens) // 1024}k" if tokens and tokens % 1024 == 0 else str(int(tokens))


def rule_text(settings: dict) -> str:
    limit = "sparsity" if settings["strength"] is None else "strength"
    value = settings[limit]
    return f"{settings['rule']} at {limit} " + (f"{value:g}" if isinstance(value, (int, float)) else "by head")


def _png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
