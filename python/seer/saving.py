"""The gates of a model as a folder."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Union

import torch

from ._card import write_card
from ._head_needs import to_json
from ._made_for import fingerprint_of
from ._processes import is_sharded, rank, whole
from .attach import head_sizes, of_model
from .gates import check_folder, replace, write_gates


def check_free(folder: pathlib.Path) -> None:
    """ValueError: it is no folder, or config.json of something else than gates would be lost."""
    check_folder(folder)
    path = folder / "config.json"
    if path.exists() and "seerattn_gate_type" not in path.read_text(errors="replace"):
        raise ValueError(f"{path} is not of gates, and would be lost: choose another folder, such as {folder / 'gates'}")


def save_gates(model: torch.nn.Module, folder: Union[str, os.PathLike]) -> None:
    """Writes the gates of a model as config.json and attn_gate_weights.safetensors, which the program and `attach` read, and a
    model card, README.md: the folder can be pushed to Hugging Face's Hub. A card that was changed, or is not of here, stays. Of lookup
    heads that were found (seer.find_lookup_heads) heads.json says what each head lost.

    Where weights are sharded (FSDP2) all processes must call this, and the first one writes. ValueError: NaN in the gates; the folder
    holds a config.json that is not of gates, such as a model's.
    """
    attachment = of_model(model)
    check_free(pathlib.Path(folder))
    config = attachment.gate_config
    layers = [{parameter: whole(layer.attn_gate.weight(parameter).detach()) for parameter in config.shapes(*head_sizes(layer), number)}
              for number, layer in enumerate(attachment.layers)]
    made_for = dataclasses.replace(config, base_model=model.config._name_or_path or "",
                                   fingerprint=fingerprint_of(model, attachment.base) or "")
    shared = any(map(is_sharded, model.parameters()))
    if not shared or rank() == 0:
        write_gates(folder, attachment.base.config.to_dict(), made_for, layers)
        write_card(folder, attachment.base.config, made_for, len(layers), attachment.trained)
        if attachment.needs is not None:
            text = json.dumps(to_json(attachment.needs, config.lookup_heads), indent=2) + "\n"
            replace(pathlib.Path(folder) / "heads.json", lambda path: path.write_text(text))
    if shared:
        torch.distributed.barrier()
