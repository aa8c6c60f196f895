"""What a call of a model with gates means, settled before any layer runs."""
from __future__ import annotations

import torch

from ._passes import Pass, Unsupported, packed_lengths, sums_to_lengths
from ._processes import is_model_sharded

CACHE_NAMES = ("cache", "past_key_values", "past_key_value")  # of transformers 5.2x, 5.0, 4.51


def cache_of(kwargs: dict):
    """That of a call; None: there is none."""
    return next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)


def make_pass(attachment, kwargs: dict) -> Pass:
    """What a call of the model is. Unsupported, ValueError: what cannot be computed, before anything is."""
    ids = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
    if ids is None:
        raise ValueError("seer: the model got neither input_ids nor inputs_embeds")
    batch, tokens = ids.shape[:2]
    if kwargs.get("output_attentions") or getattr(attachment.base.config, "output_attentions", False):
        raise Unsupported("output_attentions", "seer: output_attentions=True is not supported: sparse attention has no whole map; see "
                          "seer.pooled_attention")
    causal = (attachment.base.config, *attachment.layers)  # whichever of them transformers asks, for the mask or in a layer
    if kwargs.get("is_causal") is False or not all(getattr(of, "is_causal", True) for of in causal):
        raise Unsupported("causal", "seer: is_causal is False, and sparse attention is causal: such a model needs its own attention (seer.detach)")
    for layer in attachment.layers:
        if layer.training and layer.attention_dropout:
            raise Unsupported("dropout", f"seer: attention_dropout is {layer.attention_dropout}, and sparse attention has none: set it to 0 to train")
    cache = cache_of(kwargs)
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
    is_given = mask is not None  # as in transformers' sdpa, positions that begin again are then not packed sequences
    if mask is not None and mask.all():  # waits for a GPU, once a pass, as transformers' own sdpa does
        mask = None
    made = Pass(batch, tokens, past + tokens, mask)
    if kwargs.get("cu_seq_lens_q") is not None:
        if past or mask is not None:
            beside = f"{past} tokens in a cache" if past else "padding in attention_mask"
            raise Unsupported("cu_seq_lens_q", f"seer: cu_seq_lens_q packs sequences, beside {beside}: give it without")
        lengths = sums_to_lengths(kwargs["cu_seq_lens_q"], batch, tokens)
    else:
        lengths = packed_lengths(kwargs.get("position_ids"), batch, tokens) if past == 0 and tokens > 1 and not is_given else None
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
    elif tokens >= max(2, attachment.settings["dense_below"]):
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
