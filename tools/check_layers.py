#!/usr/bin/env python3
"""Fails when a file includes what its layer must not, or is too long. Run by ctest as `layers`."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Layer: the layers it may include. Deeper folders win.
MAY = {
    "seer/base": [],
    "seer/kernels/device": [],
    "seer/kernels/simd": ["seer/base"],
    "seer/kernels": ["seer/base", "seer/kernels"],
    "seer/io": ["seer/base"],
    "seer/report": ["seer/base"],
    "seer/torch": ["seer/base", "seer/kernels"],
    "seer/models": ["seer/base", "seer/io", "seer/torch"],
    "seer/train": ["seer/base", "seer/io", "seer/torch", "seer/models", "seer/report"],
    "seer/eval": ["seer/base", "seer/io", "seer/torch", "seer/models", "seer/report"],
    "seer/bench": ["seer/base", "seer/kernels", "seer/io", "seer/torch", "seer/models", "seer/train",
                   "seer/report"],
    "seer/cli": ["seer"],
}
# Folders of seer/kernels that are no op.
SHARED = {"attention", "device", "simd", "testing"}
TORCH = {"seer/torch", "seer/models", "seer/train", "seer/eval", "seer/bench", "seer/cli"}
LONGEST = {".cu": 300, ".cuh": 300}  # lines; others 400
SOURCES = {".h", ".cuh", ".cu", ".cc", ".in", ".js", ".css", ".html"}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')


def layer_of(path):
    return next(layer for layer in sorted(MAY, key=len, reverse=True) if path.startswith(layer + "/"))


def op_of(path):
    parts = path.split("/")
    if path.startswith("seer/kernels/") and len(parts) > 3 and parts[2] not in SHARED:
        return parts[2]
    return None


def problems(file):
    path = file.relative_to(ROOT).as_posix()
    layer, is_test = layer_of(path), path.endswith("_test.cc") or "/testing/" in path
    lines = file.read_text().splitlines()
    if len(lines) > LONGEST.get(file.suffix, 400):
        yield f"{path}: {len(lines)} lines, at most {LONGEST.get(file.suffix, 400)}"
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        inc = match[1]
        is_device_code = path.endswith((".cu", ".cuh"))
        if re.match(r"(torch|ATen|c10)/", inc) and (layer not in TORCH or is_device_code):
            yield f"{path}:{number}: torch header in {layer}"
        if not inc.startswith("seer/"):
            continue
        to = layer_of(inc)
        if "/testing/" in inc and not is_test:
            yield f"{path}:{number}: only tests include testing/"
        # A kernel's test reads golden files through seer/io.
        allowed = MAY[layer] + (["seer/io"] if is_test else [])
        if to != layer and not any(to.startswith(may) for may in allowed):
            yield f"{path}:{number}: {layer} must not include {to}"
        if not is_test and op_of(path) and op_of(inc) not in (None, op_of(path)):
            yield f"{path}:{number}: op {op_of(path)} must not include op {op_of(inc)}"


def problems_of_module(file):
    """Of the Python package: transformers is imported by the functions that need it, as most users of the operations do not;
    `trainer`, a class of transformers' own, is imported by its name alone."""
    lines = file.read_text().splitlines()
    if len(lines) > 400:
        yield f"{file.relative_to(ROOT)}: {len(lines)} lines, at most 400"
    for number, line in enumerate(lines, 1):
        if file.name != "trainer.py" and re.match(r"(from|import) (transformers|safetensors)\b", line):
            yield f"{file.relative_to(ROOT)}:{number}: transformers and safetensors are imported where they are needed"


def main():
    files = [f for f in sorted((ROOT / "seer").rglob("*")) if f.suffix in SOURCES]
    found = [problem for f in files for problem in problems(f)]
    package = sorted((ROOT / "python" / "seer").glob("*.py"))
    found += [problem for f in package for problem in problems_of_module(f)]
    print("\n".join(found) or f"layers: {len(files) + len(package)} files ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
