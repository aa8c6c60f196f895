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
import warnings
from typing import Iterator, Optional, Sequence, Union

import torch

from . import fingerprint
from ._attention import run_layer, seer_attention
from ._learning import Learning, sum_over_layers
from ._made_for import check_model
from ._passes import Pass, Unsupported, packed_lengths
from ._processes import is_model_sharded
from .gates import Gate, GateConfig, read_weights
from .lists import BlockLists
from .ops import selection

OLDEST, NEWEST = (4, 51), (5, 24)  # tested
# Attention classes, and the modules whose outputs are q and k before RoPE (one name: both, side by side, then v).
FAMILIES = {
    "LlamaAttention": ("q_proj", "k_proj"),
    "MistralAttention": ("q_proj", "k_proj"),
    "Qwen2Attention": ("q_proj", "k_proj"),
    "Qwen3Attention": ("q_norm", "k_norm"),
    "Phi3Attention": ("qkv_proj",),
}
CACHE_NAMES = ("cache", "past_key_values", "past_key_value")  # of transformers 5.2x, 5.0, 4.51


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
        # One graph break in each layer, where torch.compile would make many.
        self.learning_layer = torch.compiler.disable(run_layer, reason="seer: a layer whose gate learns takes gradients itself; compile without "
                                                     "fullgraph=True")
        self.undo: list = []  # calls that take everything back; copies of the model get copies of them

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
        return selection(s["sparsity"], s["rule"], s["strength"], s["sink_blocks"], s["local_blocks"], s["last_dense_rows"],
                         s["prompt_tokens"], self.gate_config.block_size)


def attach(model, gates, sparsity: Optional[float] = None, *, rule: str = "nz_ratio",
           strength: Union[float, Sequence[float], None] = None, sink_blocks: int = 0, local_blocks: int = 0,
           last_dense_rows: int = 0, prompt_tokens: int = 0, dense_below: Optional[int] = None, foreign_gates: bool = False,
           seed: int = 1, train_gates: bool = False, strict: bool = True):
    """Makes a transformers model read prompts sparsely, and returns it.

    model: of the Llama, Mistral, Qwen2, Qwen3 or Phi3 classes, whole, with PEFT adapters or quantised. gates: their folder, or
    a GateConfig for new ones, which choose nothing of use before they are trained. The rule and its settings are those of `seer.select_blocks`. Calls of fewer than `dense_below` tokens (default:
    a block), such as decoding, are dense, and so are layers whose sliding window is shorter than the text, and the tokens of a
    chunk before its first block boundary. `prompt_tokens`: length of a prompt that comes in chunks, for rules that depend on it
    (nz_ratio, last_dense_rows); 0: what is there so far counts. `foreign_gates`: take gates that were made for other weights.
    `seed`: of new gates' first weights, which `seer distill --seed` begins with, too.

    `train_gates`: gates' weights get requires_grad, and in a pass with gradients every sparse layer compares its gate with its
    true map, which costs as much as the scores of dense attention: `model.seer.gate_loss`. q and k get no gradient of it.

    ValueError, one line: gates of another model, an unknown family, settings that do not fit. At a call: masks that are no
    padding, output_attentions, caches of other kinds or that were filled without these gates, attention dropout in training. With
    `strict=False` such a call is one of the model without gates, after a warning for each cause; static caches are refused all the same,
    as transformers' generate makes their masks for the attention that it knows by name.
    """
    check_transformers()
    if getattr(model, "seer", None) is not None:
        raise ValueError("seer.attach: the model has gates already: call seer.detach(model) first")
    base = find_base(model)
    layers = find_layers(base)
    attention = layers[0]
    heads = head_sizes(attention)
    is_new = isinstance(gates, GateConfig)
    config = dataclasses.replace(gates, gate_dim=gates.gate_dim or heads[2]) if is_new else GateConfig.read(gates)
    if is_new:
        config.check_lookups(heads[0], heads[2], len(layers))
    weights = None if is_new else read_weights(gates, config, len(layers), heads)
    if weights is not None and not foreign_gates:
        check_model(gates, config, model, base)
    settings = dict(sparsity=sparsity, rule=rule, strength=strength, sink_blocks=sink_blocks, local_blocks=local_blocks,
                    last_dense_rows=last_dense_rows, prompt_tokens=prompt_tokens,
                    dense_below=config.block_size if dense_below is None else max(2, dense_below), strict=strict)
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


def detach(model):
    """Takes back what `attach` did, and returns the model."""
    attachment = getattr(model, "seer", None)
    if attachment is None:
        raise ValueError("seer.detach: the model has no gates")
    for undo in reversed(attachment.undo):
        undo()
    return model


@contextlib.contextmanager
def record_lists(model):
    """Within it, what is chosen is kept: a list with an entry for each forward pass that was sparse, {layer: BlockLists}."""
    attachment = of_model(model)
    before, attachment.recording = attachment.recording, []
    try:
        yield attachment.recording
    finally:
        attachment.recording = before


@contextlib.contextmanager
def replay_lists(model, recorded: Sequence[dict[int, BlockLists]]):
    """Within it, the sparse forward passes take these lists, one entry after another, and gates are not asked."""
    attachment = of_model(model)
    before, attachment.replaying = attachment.replaying, iter(recorded)
    try:
        yield
    finally:
        attachment.replaying = before


def of_model(model) -> Attachment:
    if getattr(model, "seer", None) is None:
        is_inside = getattr(getattr(model, "module", None), "seer", None) is not None
        raise ValueError(f"{type(model).__name__} has the model with gates inside: give its .module" if is_inside else
                         "the model has no gates: call seer.attach(model, ...) first")
    return model.seer


# ---- What the model is ---------------------------------------------------------------------------


def check_transformers() -> None:
    import transformers
    version = tuple(int(x) for x in transformers.__version__.split(".")[:2])
    if version < OLDEST:
        raise ImportError(f"seer.attach: transformers {transformers.__version__} is too old, want {'.'.join(map(str, OLDEST))} to "
                          f"{'.'.join(map(str, NEWEST))}")
    if version > NEWEST:
        warnings.warn(f"seer.attach: transformers {transformers.__version__} was not tested, {'.'.join(map(str, OLDEST))} to "
                      f"{'.'.join(map(str, NEWEST))} were")


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
        if type(attention).__name__ not in FAMILIES:
            raise ValueError(f"seer.attach: layer {number} has attention of class {type(attention).__name__}, supported are "
                             f"{', '.join(FAMILIES)}")
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
    gate.cache = next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)


def add_gate(attachment: Attachment, layer, gate: Gate, weights) -> None:
    gate.load(weights or {})
    gate.kept, gate.cache, gate.sources = {}, None, FAMILIES[type(layer).__name__]
    gate.hooked = tuple(getattr(layer, name) for name in gate.sources)
    gate.attachment = attachment
    layer.attn_gate = gate
    handles = [module.register_forward_hook(_Keep(gate.kept, name)) for name, module in zip(gate.sources, gate.hooked)]
    handles.append(layer.register_forward_pre_hook(functools.partial(_begin_layer, gate), with_kwargs=True))
    attachment.undo += [handle.remove for handle in handles]
    attachment.undo.append(functools.partial(delattr, layer, "attn_gate"))


def add_to(attachment: Attachment) -> None:
    from transformers import modeling_utils
    model, base = attachment.model, attachment.base
    modeling_utils.AttentionInterface.register("seer", seer_attention)
    use_attention(base, "seer")
    attachment.undo.append(functools.partial(use_attention, base, attachment.own_attention))
    names = list(inspect.signature(base.forward).parameters)
    handles = [base.register_forward_pre_hook(functools.partial(_begin_pass, attachment, names), with_kwargs=True),
               base.register_forward_hook(_end_pass, always_call=True)]
    model.seer = attachment
    attachment.undo += [*(handle.remove for handle in handles), functools.partial(delattr, model, "seer")]


def use_attention(base, name: str) -> None:
    base.config._attn_implementation = name
    if hasattr(base, "_update_causal_mask"):  # transformers 4.5x: it makes S x S masks for names that it does not know
        base.__dict__.pop("_update_causal_mask", None)
        if name == "seer":
            base._update_causal_mask = lambda attention_mask, *args, **kwargs: None


def _begin_pass(attachment: Attachment, names: list, module, args, kwargs):
    if getattr(module, "_is_replica", False):
        raise ValueError("seer: torch.nn.DataParallel runs copies of a model that share its gates' state: use DistributedDataParallel (torchrun), "
                         "or detach first")
    kwargs = {**dict(zip(names, args)), **kwargs}
    try:
        kwargs["seer_pass"] = make_pass(attachment, kwargs)
    except Unsupported as error:
        attachment.goes_dense(error)
        attachment.learned = None
        kwargs["seer_pass"] = "eager" if error.cause == "output_attentions" else attachment.own_attention
        use_attention(module, kwargs["seer_pass"])
    return (), kwargs


def _end_pass(module, args, output) -> None:
    if module.config._attn_implementation != "seer":
        use_attention(module, "seer")


def make_pass(attachment: Attachment, kwargs: dict) -> Pass:
    """What a call of the model is. Unsupported, ValueError: what cannot be computed, before anything is."""
    ids = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
    if ids is None:
        raise ValueError("seer: the model got neither input_ids nor inputs_embeds")
    batch, tokens = ids.shape[:2]
    if kwargs.get("output_attentions") or getattr(attachment.base.config, "output_attentions", False):
        raise Unsupported("output_attentions", "seer: output_attentions=True is not supported: sparse attention has no whole map; see "
                          "seer.pooled_attention")
    for layer in attachment.layers:
        if layer.training and layer.attention_dropout:
            raise Unsupported("dropout", f"seer: attention_dropout is {layer.attention_dropout}, and sparse attention has none: set it to 0 to train")
    cache = next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)
    check_cache(cache)
    past = cache.get_seq_length() if cache is not None else 0
    mask = kwargs.get("attention_mask")
    if mask is not None:
        if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
            form = list(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise Unsupported("mask", f"seer: attention_mask is {form}, want padding, [{batch}, {past + tokens}] of ones and zeros")
        if tuple(mask.shape) != (batch, past + tokens):
            raise Unsupported("mask", f"seer: attention_mask is {list(mask.shape)}, want [{batch}, {past + tokens}], the tokens of the cache "
                              "and those given now")
        mask = mask.to(device=ids.device, dtype=torch.bool)
    may_be_packed = past == 0 and tokens > 1 and mask is None
    if mask is not None and mask.all():  # waits for a GPU, once a pass, as transformers' own sdpa does
        mask = None
    made = Pass(batch, tokens, past + tokens, mask)
    lengths = packed_lengths(kwargs, batch, tokens) if may_be_packed else None
    if lengths is not None:
        made.pack(lengths)
    learning = attachment.learning
    if learning is not None and (learning.is_dense or torch.is_grad_enabled()):
        if past:
            raise ValueError(f"seer: gates learn from whole sequences, but {past} tokens are in a cache already: leave past_key_values out")
        made.learned = {}
        made.is_sharded = is_model_sharded(attachment.model)
    attachment.learned = made.learned
    if learning is not None and learning.is_dense:
        if made.sequences is None:
            made.find_sequences()
    elif tokens >= attachment.settings["dense_below"]:
        if made.sequences is None:
            made.find_sequences()
        made.is_sparse = True
        made.keeps_lists = torch.is_grad_enabled() or attachment.recording is not None
        if attachment.replaying is not None:
            made.lists = next(attachment.replaying, None)
            if made.lists is None:
                raise ValueError("seer.replay_lists: there are no lists left for this forward pass")
        if attachment.recording is not None:
            attachment.recording.append(made.lists)
    if made.sequences is not None and attachment.gate_config.lookup_heads:
        made.find_shifts(kwargs.get("position_ids"))
    return made


def check_cache(cache) -> None:
    if cache is None:
        return
    from transformers import cache_utils
    dynamic = getattr(cache_utils, "DynamicLayer", None)
    layers = getattr(cache, "layers", None)
    if dynamic is not None and layers is not None:
        is_dynamic = all(isinstance(layer, dynamic) for layer in layers)
    else:
        is_dynamic = isinstance(cache, cache_utils.DynamicCache)
    if is_dynamic:
        return
    message = f"seer: a cache of class {type(cache).__name__} is not supported, want DynamicCache, the default"
    if getattr(cache, "is_compileable", True):  # generate makes masks for it, by the name of the attention: none for ours
        raise ValueError(message)
    raise Unsupported("cache", message)
