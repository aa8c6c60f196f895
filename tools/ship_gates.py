#!/usr/bin/env python3
"""Makes of trained gates those that ship with seer (docs/evaluation.md, "Gates that ship").

    python tools/ship_gates.py GATES MODEL assets/gates/NAME

Weights become bfloat16, of which all readers make float32, and base_model the name of MODEL's folder without a path. Refused are
gates that were made for other weights than MODEL's, and more than 8 MiB. Needs torch, safetensors and the built library.
"""
import argparse
import dataclasses
import json
import pathlib
import shutil
import sys

import torch

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "python"))
from seer.fingerprint import of_folder  # noqa: E402
from seer.gates import GateConfig, read_weights, write_gates  # noqa: E402

LARGEST = 8 * 2 ** 20  # bytes


def fail(message):
    sys.exit(f"ship_gates: error: {message}")


def ship(gates, model, out):
    config = GateConfig.read(gates)
    found, _ = of_folder(model)
    if found != config.fingerprint:
        fail(f"{gates}: these gates were made for weights {config.fingerprint or 'unknown'}, not {found} as in {model}")
    fields = json.loads((gates / "config.json").read_text())
    heads = fields["num_attention_heads"]
    sizes = heads, fields.get("num_key_value_heads", heads), fields.get("head_dim") or fields["hidden_size"] // heads
    layers = [{name: weight.to(torch.bfloat16) for name, weight in layer.items()}
              for layer in read_weights(gates, config, fields["num_hidden_layers"], sizes)]
    weights = [weight for layer in layers for weight in layer.values()]
    size = sum(weight.nbytes for weight in weights)
    if size > LARGEST:
        fail(f"{gates}: weights are {size / 2 ** 20:.1f} MiB in bfloat16, want at most {LARGEST >> 20} to ship")
    write_gates(out, fields, dataclasses.replace(config, base_model=model.resolve().name), layers)
    if (gates / "heads.json").exists():
        shutil.copyfile(gates / "heads.json", out / "heads.json")
    print(f"{out}: {len(weights)} weights, {size / 2 ** 20:.1f} MiB, lookup heads: {sum(map(len, config.lookup_heads.values()))}")


def main():
    parser = argparse.ArgumentParser(description="trained gates as they ship")
    parser.add_argument("gates", type=pathlib.Path, help="folder of the gates")
    parser.add_argument("model", type=pathlib.Path, help="folder of the model that they were made for")
    parser.add_argument("out", type=pathlib.Path, help="folder in assets/gates")
    args = parser.parse_args()
    try:
        ship(args.gates, args.model, args.out)
    except (OSError, ValueError) as error:
        fail(error)


if __name__ == "__main__":
    main()
