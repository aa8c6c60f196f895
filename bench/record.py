"""The file of results: what stands around the rows, merging, and writing."""
import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess

FORM = json.loads((pathlib.Path(__file__).resolve().parent.parent / "seer" / "report" / "results.json").read_text())
# Rows with the same values of these were measured together, in one process and on the same inputs.
GROUP = (*FORM["shape"], "dtype")


def slug(name):
    """A folder's name: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def portable(command):
    """A command, or several, without where the inputs are and where results go: none shapes the
    results. Inputs keep their names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for place in ("--out", "--json", "--png"):
        parser.add_argument(place)
    short = "; ".join(" ".join(parser.parse_known_args(one.split())[1]) for one in command.split("; "))
    return re.sub(r"(?<=[ ,=])(/|\.)[^ ,;]*/", "", short)


def today():
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def driver():
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def gpu():
    import torch
    import triton
    return {"chip": torch.cuda.get_device_name(),
            "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "driver": driver(),
                         "cudnn": torch.backends.cudnn.version(), "triton": triton.__version__}}


def cpu():
    """As the program's own records have it."""
    import torch
    path = pathlib.Path("/proc/cpuinfo")
    info = dict(re.findall(r"^(model name|flags)\s*: (.*)$", path.read_text() if path.exists() else "", flags=re.M))
    return {"chip": info.get("model name", "unknown CPU"), "threads": torch.get_num_threads(), "avx2_at_most": False,
            "bf16_dot_product": {"avx512_bf16", "avx512bw", "avx512vl"} <= set(info.get("flags", "").split()), "versions": {"torch": torch.__version__}}


def folder(machine):
    """Of results/: that of a GPU, or of a CPU and as many threads."""
    threads = f"-{machine['threads']}-threads" if "threads" in machine else ""
    return slug(machine["chip"]) + threads + ("-avx512bf16" if machine.get("bf16_dot_product") else "")


def make(command, method, rivals, rows, failed, operation="block_sparse_attn", machine=None):
    """rivals: {name: version, or why it is missing}; failed: {group: why it has no rows}; machine: gpu()'s or cpu()'s, a GPU's unless said."""
    return {"operation": operation, **(machine or gpu()), "rivals": rivals, "method": method, "failed": failed, "command": command,
            "date": today(), "rows": rows}


def group_of(row):
    return tuple(row[key] for key in GROUP)


def merge(old, new, group_of=group_of):
    """`new` with the groups of `old` that it does not have. A group stays whole: ratios are taken inside it."""
    if any(old.get(key) != new.get(key) for key in FORM["same"]):
        raise ValueError(f"results of {old['chip']}, {old['versions']} cannot be joined with those of {new['chip']}, "
                         f"{new['versions']}: write to another --out, or leave --append away")
    measured = {group_of(row) for row in new["rows"]}
    kept = [row for row in old["rows"] if group_of(row) not in measured]
    command = new["command"]
    if kept and old["command"] != command:
        command = old["command"] if command in old["command"].split("; ") else f"{old['command']}; {command}"
    return {**new, "command": command, "rows": kept + new["rows"]}


def read(path):
    return json.loads(pathlib.Path(path).read_text())


def write(path, record):
    """Atomic: a killed run leaves the old file or the new one."""
    if unknown := record.keys() - FORM["fields"].keys():
        raise ValueError(f"seer/report/results.json has no field {', '.join(sorted(unknown))}")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    os.replace(beside, path)
