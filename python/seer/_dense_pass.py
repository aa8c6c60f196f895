"""A dense pass of a model with gates whose layers are looked at: for pictures of heads, and to find lookup heads."""
from __future__ import annotations

import contextlib
from typing import Callable, Optional

import torch

from ._attention import Layer, seer_attention
from ._processes import is_model_sharded
from .attach import device_of, of_model


@contextlib.contextmanager
def evaluating(model):
    """Within it, the model is as after eval()."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@torch.no_grad()
def see_layers(model, ids: torch.Tensor, see: Callable[[Layer, Optional[int]], torch.Tensor]) -> None:
    """Runs a model on ids int64 [tokens]. `see(layer, window)` gives the output of a layer's attention, that of `layer.dense(window)`;
    window: tokens of a sliding window, None where it hides no keys. The model is left as it was."""
    from transformers import modeling_utils
    attachment = of_model(model)

    def attention(module, query, key, value, attention_mask, scaling=None, sliding_window=None, seer_pass=None, **kwargs):
        layer = Layer(module, module.attn_gate, seer_pass, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
        return see(layer, sliding_window if sliding_window and seer_pass.longest > sliding_window else None), None

    changed = dict(settings={**attachment.settings, "dense_below": 2, "strict": True}, recording=None, replaying=None, learning=None, learned=None)
    before = {name: getattr(attachment, name) for name in changed}
    # Logits are not needed, but sharded weights are gathered by the whole model's hooks.
    run = model if is_model_sharded(model) else attachment.base
    modeling_utils.AttentionInterface.register("seer", attention)
    try:
        vars(attachment).update(changed)
        with evaluating(model):
            run(input_ids=ids.view(1, -1).to(device_of(attachment.base)), use_cache=False)
    finally:
        vars(attachment).update(before)
        modeling_utils.AttentionInterface.register("seer", seer_attention)
