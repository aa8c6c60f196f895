"""Whose weights gates are made for: their folders name them by a fingerprint."""
from __future__ import annotations

import warnings
from typing import Optional

from . import fingerprint
from ._processes import whole
from .gates import GateConfig


def fingerprint_of(model, base) -> Optional[str]:
    """Of the weights as they are; None: they are quantised or elsewhere."""
    sums, named = {}, {f"model.{name}": x for name, x in base.state_dict().items()}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is not None:
        named["lm_head.weight"] = head.weight
    for name, x in named.items():
        name = name.replace(".base_layer.", ".")  # of PEFT
        if not fingerprint.READ.fullmatch(name):
            continue
        if x.device.type == "meta" or not x.is_floating_point() or x.element_size() < 2:
            return None
        sums[name] = fingerprint.sum_of(whole(x.detach()).flatten())
    return fingerprint.text_of(sums)


def converted_from(model) -> Optional[str]:
    """The fingerprint of the folder that the model was loaded from, where its weights were converted to another type."""
    folder = getattr(model.config, "_name_or_path", None)
    try:
        found, types = fingerprint.of_folder(folder) if folder else (None, {model.dtype})
    except (OSError, ValueError):  # not a folder with safetensors
        return None
    return None if model.dtype in types else found


def check_model(folder, config: GateConfig, model, base) -> None:
    """That gates were made for these weights, where their folder tells them."""
    if not config.fingerprint:
        return
    found = fingerprint_of(model, base)
    if found is None:
        warnings.warn(f"seer.attach: whether {folder} was made for this model cannot be seen, as its weights are quantised or elsewhere")
        return
    advice = "load that one, in the type that its files have, or take foreign_gates=True"
    if found != config.fingerprint and config.fingerprint != converted_from(model):
        raise ValueError(f"{folder}: these gates were made for another model, {config.base_model or 'unknown'} with weights "
                         f"{config.fingerprint}, not {found}; {advice}")
    theirs = type(base.config).from_pretrained(folder)
    frequencies = lambda of: type(base.rotary_emb)(config=of).inv_freq.tolist()
    for what, read in (("RoPE", frequencies), ("rms_norm_eps", lambda of: of.rms_norm_eps),
                       ("sliding_window", lambda of: getattr(of, "sliding_window", None))):
        if read(theirs) != read(base.config):
            raise ValueError(f"{folder}: these gates were made for a model with the same weights but other settings ({what}); {advice}")
