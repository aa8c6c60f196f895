"""Gates on models of transformers as they are: nothing of them is copied or changed but what `detach` takes back.

Each attention layer gets its gate as a submodule, `attn_gate`. Hooks keep views of q and k before RoPE; a function in transformers'
registry of attention implementations, "seer", takes them. What a batch's masks and positions mean is settled once a forward pass.
"""
from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import os
import warnings
from typing import Iterator, Optional, Sequence, Union

import torch

from . import fingerprint
from ._attention import run_layer, seer_attention
from ._learning import Learning, sum_over_layers
from ._made_for import check_model
from ._calls import cache_of, make_pass
from ._passes import Unsupported
from .gates import Gate, GateConfig, read_weights
from .lists import BlockLists
from .ops import check_count, check_strengths, selection

OLDEST, NEWEST = (4, 51), (5, 24)  # tested
# Attention classes, and the modules whose outputs are q and k before RoPE (one name: both, side by side, then v).
FAMILIES = {
    "LlamaAttention": ("q_proj", "k_proj"),
    "MistralAttention": ("q_proj", "k_proj"),
    "Qwen2Attention": ("q_proj", "k_proj"),
    "Qwen3Attention": ("q_norm", "k_norm"),
    "Phi3Attention": ("qkv_proj",),
}


class Attachment:
    """What `attach` made: `model.seer`."""

    def __init__(self, model, base, layers, config: GateConfig, settings: dict):
        self.model, self.base, self.layers = model, base, layers
        self.gate_config, self.settings = config, settings
        self.recording: Optional[list] = None
        self.replaying: Optional[Iterator] = None
        self.learning: Optional[Learning] = None
        self.learned: Optional[dict] = None  # of the last pass
        self.rotary = None  # what gate vectors rotate by
        self.first = ""     # what tells the weights that the gates began with
        self.trained = ""   # how they were trained, in words
        self.needs: Optional[torch.Tensor] = None  # by which lookup heads were found
        self.own_attention = base.config._attn_implementation  # before it is "seer"
        self.warned: set = set()  # of which causes of dense calls
        self.in_dense_call = False  # the model's own attention is in place
        self.undo: list = []  # calls that take everything back; copies of the model get copies of them
        self._name_functions()

    def _name_functions(self) -> None:
        from transformers import modeling_utils
        modeling_utils.AttentionInterface.register("seer", seer_attention)
        # One graph break in each layer, where torch.compile would make many.
        self.learning_layer = torch.compiler.disable(run_layer, reason="seer: a layer whose gate learns takes gradients itself; compile without "
                                                     "fullgraph=True")

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "learning_layer"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._name_functions()

    def update(self, **changes) -> None:
        """Other settings of `attach` for the calls that follow. ValueError: they do not fit together; nothing is changed."""
        unknown = changes.keys() - self.settings.keys()
        if unknown:
            raise ValueError(f"seer: no setting {', '.join(sorted(unknown))}, want some of {', '.join(self.settings)}")
        settings = {**self.settings, **changes}
        self._selection_of(settings)
        self.settings = settings

    def selection(self) -> tuple:
        """The rule as the ops take it."""
        return self._selection_of(self.settings)

    @property
    def gate_loss(self) -> torch.Tensor:
        """Of the last pass (attach(train_gates=True)): the gates' losses summed over layers, float32 [], to be added to the model's
        with a weight (10). Differentiable in the gates' weights alone."""
        if self.learned is None:
            raise ValueError("seer.gate_loss: the last pass had none, want one with gradients after seer.attach(..., train_gates=True)")
        return sum_over_layers(self.learned)

    def goes_dense(self, error: Unsupported) -> None:
        """Warns, once for each cause, that a call is dense. Raises the error where dense calls are not wanted instead."""
        if self.settings["strict"]:
            raise error
        if error.cause not in self.warned:
            self.warned.add(error.cause)
            warnings.warn(f"{error}; such calls are dense, as strict=False")

    def _selection_of(self, s: dict) -> tuple:
        check_count("dense_below", s["dense_below"])
        found = selection(s["sparsity"], s["rule"], s["strength"], s["sink_blocks"], s["local_blocks"], s["last_dense_rows"],
                          s["prompt_tokens"], self.gate_config.block_size)
        check_strengths(s["rule"], found[1], head_sizes(self.layers[0])[0])
        return found


def attach(model: torch.nn.Module, gates: Union[str, os.PathLike, GateConfig], sparsity: Union[float, Sequence[float], None] = None, *, rule: str = "nz_ratio",
           strength: Union[float, Sequence[float], None] = None, sink_blocks: int = 0, local_blocks: int = 0,
           last_dense_rows: int = 0, prompt_tokens: int = 0, dense_below: Optional[int] = None, foreign_gates: bool = False,
           seed: int = 1, train_gates: bool = False, strict: bool = True) -> torch.nn.Module:
    """Makes a transformers model read prompts sparsely, and returns it.

    model: of the Llama, Mistral, Qwen2, Qwen3 or Phi3 classes, whole, with PEFT adapters or quantised. gates: their folder, or
    a GateConfig for new ones, which choose nothing of use before they are trained. The rule and its settings are those of `seer.select_blocks`. Calls of fewer than `dense_below` tokens (default:
    a block), such as decoding, are dense, and so are layers whose sliding window is shorter than the text, and the tokens of a
    chunk before its first block boundary. `prompt_tokens`: length of a prompt that comes in chunks, for rules that depend on it
    (nz_ratio, last_dense_rows); 0: what is there so far counts. `foreign_gates`: take gates that were made for other weights.
    `seed`: of new gates' first weights, which `seer distill --seed` begins with, too.

    `train_gates`: gates' weights get requires_grad, and in a pass with gradients every sparse layer compares its gate with its
    true map, which costs as much as the scores of dense attention: `model.seer.gate_loss`. q and k get no gradient of it.

    ValueError, one line: gates of another model, an unknown family, settings that do not fit. ImportError: another transformers; a newer one
    is tried with `strict=False`. At a call: masks that are no
    padding, is_causal=False, output_attentions, another attention set since, caches of other kinds or that were filled without these gates, attention dropout in training. With
    `strict=False` such a call is one of the model without gates, after a warning for each cause; static caches are refused all the same,
    as transformers' generate makes their masks for the attention that it knows by name.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"seer.attach: model is of class {type(model).__name__}, want a model of transformers")
    check_transformers(strict)
    base = find_base(model)
    if hasattr(base, "seer"):
        raise ValueError("seer.attach: the model has gates already: call seer.detach(model) first")
    layers = find_layers(base)
    attention = layers[0]
    heads = head_sizes(attention)
    is_new = isinstance(gates, GateConfig)
    if not is_new and not isinstance(gates, (str, os.PathLike)):
        raise ValueError(f"seer.attach: gates is {gates!r}, want their folder, or a seer.GateConfig for new ones")
    config = dataclasses.replace(gates, gate_dim=gates.gate_dim or heads[2]) if is_new else GateConfig.read(gates)
    if is_new:
        config.check_lookups(heads[0], heads[2], len(layers))
    weights = None if is_new else read_weights(gates, config, len(layers), heads)
    if weights is not None and not foreign_gates:
        check_model(gates, config, model, base)
    settings = dict(sparsity=sparsity, rule=rule, strength=strength, sink_blocks=sink_blocks, local_blocks=local_blocks,
                    last_dense_rows=last_dense_rows, prompt_tokens=prompt_tokens,
                    dense_below=config.block_size if dense_below is None else dense_below, strict=strict)
    attachment = Attachment(model, base, layers, config, settings)
    attachment.selection()  # refuses settings that do not fit
    attachment.rotary = gate_rotary(base, config, heads[2])
    attachment.learning = Learning() if train_gates else None
    attachment.first = f"seed {seed}" if is_new else fingerprint.text_of(
        {f"{number}.{parameter}": fingerprint.sum_of(x.flatten()) for number, layer in enumerate(weights) for parameter, x in layer.items()})
    for number, layer in enumerate(layers):
        gate = Gate(config, *heads, device_of(layer), number).requires_grad_(train_gates)
        if is_new:
            gate.draw(seed, number)
        add_gate(attachment, layer, gate, weights and weights[number])
    add_to(attachment)
    return model


def detach(model: torch.nn.Module) -> torch.nn.Module:
    """Takes back what `attach` did, and returns the model."""
    for undo in reversed(of_model(model).undo):
        undo()
    return model


@contextlib.contextmanager
def record_lists(model: torch.nn.Module) -> Iterator[list[dict[int, BlockLists]]]:
    """Within it, what is chosen is kept: a list with an entry for each forward pass that was sparse, {layer: BlockLists}."""
    attachment = of_model(model)
    before, attachment.recording = attachment.recording, []
    try:
        yield attachment.recording
    finally:
        attachment.recording = before


@contextlib.contextmanager
def replay_lists(model: torch.nn.Module, recorded: Sequence[dict[int, BlockLists]]) -> Iterator[None]:
    """Within it, the sparse forward passes take these lists, one entry after another, and gates are not asked."""
    attachment = of_model(model)
    if not isinstance(recorded, (list, tuple)) or not all(isinstance(entry, dict) and all(isinstance(lists, BlockLists) for lists in entry.values())
                                                          for entry in recorded):
        raise ValueError("seer.replay_lists: want a list with an entry {layer: seer.BlockLists} for each forward pass, as seer.record_lists gives it")
    before, attachment.replaying = attachment.replaying, iter(recorded)
    try:
        yield
    finally:
        attachment.replaying = before


def of_model(model) -> Attachment:
    if getattr(getattr(model, "module", None), "seer", None) is not None:
        raise ValueError(f"{type(model).__name__} has the model with gates inside: give its .module")
    found = next((x.seer for x in (model, *model.modules()) if hasattr(x, "seer")), None) if isinstance(model, torch.nn.Module) else None
    if found is None:
        raise ValueError("the model has no gates: call seer.attach(model, ...) first")
    return found


# ---- What the model is ---------------------------------------------------------------------------


def check_transformers(strict: bool) -> None:
    import transformers
    version, (oldest, newest) = transformers.__version__, (".".join(map(str, x)) for x in (OLDEST, NEWEST))
    number = tuple(int(x) for x in version.split(".")[:2])
    if number < OLDEST:
        raise ImportError(f"seer.attach: transformers {version} is too old, want {oldest} to {newest}")
    if number > NEWEST:
        untested = f"seer.attach: transformers {version} was not tested, {oldest} to {newest} were"
        if strict:
            raise ImportError(f"{untested}; strict=False tries it")
        warnings.warn(untested)


def find_base(model):
    """The decoder: the module that has the layers and their rotary embedding."""
    for module in model.modules():
        if hasattr(module, "layers") and hasattr(module, "rotary_emb"):
            return module
    raise ValueError(f"seer.attach: {type(model).__name__} has no decoder layers with a rotary embedding; supported are models with "
                     f"{', '.join(FAMILIES)}")


def find_layers(base) -> list:
    layers = []
    for number, layer in enumerate(base.layers):
        attention = getattr(layer, "self_attn", None)
        of = type(attention)
        if of.__name__ not in FAMILIES or not of.__module__.startswith("transformers.models."):  # others may leave the registry out
            found = "no self_attn" if attention is None else f"attention of class {of.__module__}.{of.__qualname__}"
            raise ValueError(f"seer.attach: layer {number} of {type(base).__name__} has {found}, supported are {', '.join(FAMILIES)} of "
                             "transformers.models")
        layers.append(attention)
    return layers


def head_sizes(attention) -> tuple[int, int, int]:
    """Query heads, key heads, features of a head."""
    config = attention.config
    return config.num_attention_heads, config.num_key_value_heads, attention.head_dim


def device_of(attention) -> torch.device:
    found = next(attention.parameters()).device
    return torch.device("cpu") if found.type == "meta" else found  # moved to the data when it is called


def rotary_of(base, **changes):
    """A rotary embedding of the model's class with another config."""
    config = copy.deepcopy(base.rotary_emb.config)
    for name, value in changes.items():
        setattr(config, name, value)
    return type(base.rotary_emb)(config=config)


def gate_rotary(base, config: GateConfig, head_dim: int):
    """What gate vectors rotate by: the model's own, but for Qwen2 gates of another size, which rotate as a whole."""
    size = config.gate_dim or head_dim
    if size != head_dim and base.config.model_type == "qwen2":
        return rotary_of(base, head_dim=size)
    rotated = 2 * base.rotary_emb.inv_freq.numel()
    if rotated > size:
        raise ValueError(f"seer.attach: gate size is {size}, less than the {rotated} features that RoPE rotates in this "
                         f"{base.config.model_type} model")
    return base.rotary_emb


# ---- Hooks ---------------------------------------------------------------------------------------


class _Keep:
    """A forward hook that keeps a view of the output. An object, so that copies of a model have their own."""

    def __init__(self, kept: dict, name: str):
        self.kept, self.name = kept, name

    def __call__(self, module, args, output):
        self.kept[self.name] = output.detach()


def _begin_layer(gate: Gate, module, args, kwargs) -> None:
    gate.kept.clear()
    gate.cache = cache_of(kwargs)


def _end_layer(gate: Gate, module, args, output) -> None:
    """Nothing of a call is held longer: neither q and k of every layer, nor a cache that its owner gave up."""
    gate.kept.clear()
    gate.cache = None


def add_gate(attachment: Attachment, layer, gate: Gate, weights) -> None:
    gate.load(weights or {})
    gate.kept, gate.cache, gate.sources = {}, None, FAMILIES[type(layer).__name__]
    gate.hooked = tuple(getattr(layer, name) for name in gate.sources)
    gate.attachment = attachment
    layer.attn_gate = gate
    handles = [module.register_forward_hook(_Keep(gate.kept, name)) for name, module in zip(gate.sources, gate.hooked)]
    handles += [layer.register_forward_pre_hook(functools.partial(_begin_layer, gate), with_kwargs=True),
                layer.register_forward_hook(functools.partial(_end_layer, gate))]
    attachment.undo += [handle.remove for handle in handles]
    attachment.undo.append(functools.partial(delattr, layer, "attn_gate"))


def add_to(attachment: Attachment) -> None:
    model, base = attachment.model, attachment.base
    use_attention(base, "seer")
    attachment.undo.append(functools.partial(use_attention, base, attachment.own_attention))
    names = list(inspect.signature(base.forward).parameters)
    handles = [base.register_forward_pre_hook(functools.partial(_begin_pass, attachment, names), with_kwargs=True),
               base.register_forward_hook(functools.partial(_end_pass, attachment), always_call=True)]
    attachment.undo += [handle.remove for handle in handles]
    for holder in {id(x): x for x in (model, base)}.values():  # whichever of a model's wrappers asks
        holder.seer = attachment
        attachment.undo.append(functools.partial(delattr, holder, "seer"))


def _no_mask(attention_mask, *args, **kwargs) -> None:
    pass


def use_attention(base, name: str) -> None:
    base.config._attn_implementation = name
    if hasattr(base, "_update_causal_mask"):  # transformers 4.5x: it makes S x S masks for names that it does not know
        base.__dict__.pop("_update_causal_mask", None)
        if name == "seer":
            base._update_causal_mask = _no_mask


def _begin_pass(attachment: Attachment, names: list, module, args, kwargs):
    if getattr(module, "_is_replica", False):
        raise ValueError("seer: torch.nn.DataParallel runs copies of a model that share its gates' state: use DistributedDataParallel (torchrun), "
                         "or detach first")
    now = module.config._attn_implementation
    if now != "seer":
        raise ValueError(f'seer: the attention of the model was set to "{now}" after seer.attach, so that no gate would be asked: call '
                         'model.set_attn_implementation("seer"), or seer.detach(model)')
    kwargs = {**dict(zip(names, args)), **kwargs}
    try:
        kwargs["seer_pass"] = make_pass(attachment, kwargs)
    except Unsupported as error:
        attachment.goes_dense(error)
        attachment.learned = None
        kwargs["seer_pass"] = "eager" if error.cause == "output_attentions" else attachment.own_attention
        attachment.in_dense_call = True
        use_attention(module, kwargs["seer_pass"])
    return (), kwargs


def _end_pass(attachment: Attachment, module, args, output) -> None:
    if attachment.in_dense_call:
        attachment.in_dense_call = False
        use_attention(module, "seer")
