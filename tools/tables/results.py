"""The files of results/<chip>/, and what stands below a table that was made of one."""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import record  # noqa: E402
from table import markdown  # noqa: E402, F401

FOLDER = ROOT / "results"
CPU, CPU_AVX2, GPU = "amd-epyc-2-threads-avx512bf16", "amd-epyc-2-threads-avx2", "nvidia-h200"
CPU_QUALITY = "intel-xeon-2-threads-avx512bf16"  # what the embedded model is worth does not depend on the CPU but for rounding


def load(name, chip):
    return json.loads((FOLDER / chip / f"{name}.json").read_text())


def flags(command):
    """Of a command: {flag: value}, but for those that say which text is read and where results go."""
    words = record.portable(command).split()
    return {flag: value for flag, value in zip(words, words[1:]) if flag.startswith("--") and flag not in ("--data", "--json", "--out")}


def source(made, name, chip, *others):
    """Where a table comes from: chip, versions, date, command, file; files of others made like it, but for flags that stand beside them."""
    versions = made["versions"]
    parts = [made["chip"]]
    if chip != GPU:  # a GPU's times do not depend on them
        parts.append(f"{made['threads']} threads")
    parts.append(f"torch {versions['torch']}")
    if "cudnn" in versions:
        parts.append(f"cuDNN {versions['cudnn']}")
    own = flags(made["command"])
    files = [f"[{name}.json](results/{chip}/{name}.json)"]
    for file in others:
        differ = [f"{flag} {value}" for flag, value in flags(load(file, chip)["command"]).items() if own.get(flag) != value]
        files.append(f"[{file}.json](results/{chip}/{file}.json)" + (f" (`{' '.join(differ)}`)" if differ else ""))
    files = ", ".join(files)
    return f"{', '.join(parts)}, {made['date']}; `{record.portable(made['command'])}`; {files}"


def length(tokens):
    return f"{tokens // 1024}k"


def share(part):
    """Of 0 .. 1, as a percentage; "-" where it was not measured."""
    return "-" if part is None else f"{part:.1%}" if abs(part) < 0.095 else f"{part:.0%}"
