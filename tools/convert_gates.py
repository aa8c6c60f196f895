#!/usr/bin/env python3
"""Converts published gates (config.json + attn_gate_weights.pth) to safetensors.

    python tools/convert_gates.py FOLDER [OUT] [--model MODEL]

With --model, the folder of the model that they were made for, config.json also gets the fingerprint of its
weights, so that seer refuses to use them with another one; gates that are safetensors already get no more than that.
The .pth file is a pickle: it is read by torch's weights-only loader, which builds tensors and runs
nothing. OUT (default: FOLDER) gets config.json and attn_gate_weights.safetensors with the same tensors
under the same names. Needs torch alone.
"""
import argparse
import json
import os
import pathlib
import struct
import sys
import tempfile

import torch

# Not as a part of the package, which loads the library.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "python" / "seer"))
from fingerprint import of_folder  # noqa: E402

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def fail(message):
    sys.exit(f"convert_gates: error: {message}")


def load(path):
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        fail(f"{path} is not there: name a folder with published gates")
    except Exception as error:  # the loader raises many types for broken or hostile files
        fail(f"{path} is not a plain torch state dict ({str(error).splitlines()[0]})")
    if not isinstance(weights, dict) or not weights:
        fail(f"{path} holds no tensors by name")
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in DTYPES:
            fail(f"{path}: {name} is not a tensor of f32, bf16 or f16")
        if not torch.isfinite(tensor).all():
            fail(f"{path}: {name} has NaN or infinite values")
    return weights


def write_atomic(path, parts):
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".tmp.")
    try:
        with os.fdopen(handle, "wb") as out:
            for part in parts:
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def safetensors_parts(weights):
    header, offset = {}, 0
    for name, tensor in weights.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in weights.values():
        yield tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def main():
    parser = argparse.ArgumentParser(description="published gates (.pth) to safetensors")
    parser.add_argument("folder", type=pathlib.Path, help="with config.json and attn_gate_weights.pth")
    parser.add_argument("out", type=pathlib.Path, nargs="?", help="default: the same folder")
    parser.add_argument("--model", type=pathlib.Path, help="folder of the model that they were made for")
    args = parser.parse_args()
    out = args.out or args.folder
    try:
        config = (args.folder / "config.json").read_bytes()
        settings = json.loads(config)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except ValueError:
        fail(f"{args.folder / 'config.json'} is not valid JSON")
    if args.model:
        if not isinstance(settings, dict):
            fail(f"{args.folder / 'config.json'} holds no JSON object")
        name = os.fsencode(args.model).decode(errors="replace")  # JSON is UTF-8
        settings["base_model"] = settings.get("base_model") or name
        try:
            settings["base_model_fingerprint"], _ = of_folder(args.model)
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}; --model wants a folder with safetensors")
        except ValueError as error:
            fail(str(error))
        config = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    is_converted = args.model and out == args.folder and (out / "attn_gate_weights.safetensors").exists()
    weights = None if is_converted else load(args.folder / "attn_gate_weights.pth")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if out != args.folder or args.model:
            write_atomic(out / "config.json", [config])
        if weights:
            write_atomic(out / "attn_gate_weights.safetensors", safetensors_parts(weights))
    except OSError as error:
        fail(f"cannot write in {out}: {error.strerror}")
    if args.model:
        print(f"{out / 'config.json'}: {settings['base_model_fingerprint']}")
    if weights:
        print(f"{out / 'attn_gate_weights.safetensors'}: {len(weights)} tensors")


if __name__ == "__main__":
    main()
