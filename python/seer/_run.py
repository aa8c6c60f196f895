"""The folder of a run: run.json (its settings), metrics.jsonl, checkpoints/ (the last two). A killed run goes on from there."""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings

import torch

from ._data import digest
from .gates import WEIGHTS, check_folder, replace

TASK = "seer.distill"
RESULTS = (f"{WEIGHTS}.safetensors", "config.json", "heads.json")
KEPT = 2


class RunFolder:
    """settings: what tells runs apart, JSON. ValueError, one line: what lies there is no such run, or one with other settings;
    another process has it open. Nothing is changed then."""

    def __init__(self, out, settings: dict, restart: bool):
        self.out, self.settings = pathlib.Path(out), json.loads(json.dumps(settings))
        self.id = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        check_folder(self.out)
        run = self.out / "run.json"
        if run.exists():
            before = _read(run)
            if not isinstance(before, dict) or before.get("task") != TASK:
                raise ValueError(f"{run} is not of a run of {TASK}, which would write there: choose another folder")
        else:
            for name in (*RESULTS, "metrics.jsonl", "checkpoints"):
                if (self.out / name).exists():
                    raise ValueError(f"{self.out} holds {name}, which no run of {TASK} has made (there is no run.json): choose another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.out / ".lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            raise ValueError(f"another process trains in {self.out}: wait for it, or take another folder") from None
        try:
            if restart and run.exists():
                shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
                for name in (*RESULTS, "metrics.jsonl", "run.json"):  # run.json last: until then the folder is this run's
                    (self.out / name).unlink(missing_ok=True)
            if run.exists():
                difference = first_difference(self.settings, _read(run))
                if difference:
                    raise ValueError(f"the run in {self.out} has other settings: {difference}; take the same, another folder, or restart=True "
                                     "to discard that run")
            else:
                replace(run, lambda path: path.write_text(json.dumps(self.settings, indent=2) + "\n"))
            (self.out / "checkpoints").mkdir(exist_ok=True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.lock.close()

    def checkpoints(self) -> list[tuple[int, pathlib.Path]]:
        """By step."""
        found = [(re.fullmatch(r"step-(\d+)\.safetensors", path.name), path) for path in (self.out / "checkpoints").iterdir()]
        return sorted((int(match[1]), path) for match, path in found if match)

    def resume(self, tensors: dict[str, torch.Tensor]) -> dict:
        """Copies the last whole checkpoint into `tensors`, and gives its state with "rows", the metrics so far; empty: there is none.
        ValueError: there are some, none of which is whole."""
        damaged = []
        for step, path in reversed(self.checkpoints()):
            state, why = self._read_checkpoint(path, tensors)
            if why:
                damaged.append(f"the checkpoint {path} is damaged: {why}")
                continue
            for line in damaged:
                warnings.warn(f"{TASK}: {line}; going on from the one before, step {step}")
            return {**state, "rows": self._cut_metrics(state["step"])}
        if damaged:
            raise ValueError(f"{damaged[0]}, and no other one is whole: put a whole one there, or take restart=True")
        self._cut_metrics(0)
        return {}

    def _read_checkpoint(self, path, tensors) -> tuple[dict, str]:
        from safetensors import SafetensorError, safe_open
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("about", "{}"))
                found = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            return {}, str(error)
        if about.get("run") != self.id:
            return {}, "it is of another run"
        if about.get("digest") != digest(*(found[name] for name in sorted(found))):
            return {}, "it has other bytes than were written"
        if {name: x.shape for name, x in found.items()} != {name: x.shape for name, x in tensors.items()}:
            return {}, "it has other tensors"
        for name, x in tensors.items():
            x.data.copy_(found[name])
        return about["state"], ""

    def save(self, state: dict, tensors: dict[str, torch.Tensor]) -> None:
        """state: JSON with "step". RuntimeError: NaN in tensors; nothing is written."""
        from safetensors.torch import save_file
        held = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        for name, x in held.items():
            if not torch.isfinite(x).all():
                raise RuntimeError(f"{TASK}: {name} has NaN or infinite values after step {state['step']}, no checkpoint is written: try a smaller "
                                   "learning rate")
        about = {"run": self.id, "digest": digest(*(held[name] for name in sorted(held))), "state": state}
        path = self.out / "checkpoints" / f"step-{state['step']:08}.safetensors"
        replace(path, lambda unfinished: save_file(held, unfinished, metadata={"about": json.dumps(about)}))
        later = [path for step, path in self.checkpoints() if step > state["step"]]  # they were damaged
        kept = [path for step, path in self.checkpoints() if step <= state["step"]]
        for path in later + kept[:-KEPT]:
            path.unlink()

    def add(self, row: dict) -> None:
        with open(self.out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def _cut_metrics(self, last: int) -> list[dict]:
        """Rows of the first `last` steps; later ones, and what a kill cut off, go."""
        path, rows = self.out / "metrics.jsonl", []
        for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
            try:
                row = json.loads(line) if line.endswith("\n") else {}
            except ValueError:
                row = {}
            if isinstance(row, dict) and 1 <= row.get("step", 0) <= last:
                rows.append(row)
        replace(path, lambda unfinished: unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows)))
        return rows


def first_difference(now, before, path: str = "") -> str:
    """"loop.steps is 100, was 200"; empty: they are equal."""
    if now == before:
        return ""
    if not isinstance(now, dict) or not isinstance(before, dict):
        return f"{path} is {json.dumps(now)}, was {json.dumps(before)}"
    for key in [*before, *(key for key in now if key not in before)]:
        where = f"{path}.{key}" if path else key
        if key not in before or key not in now:
            return f"{where} is {'there' if key in now else 'not there'}, was {'not' if key in now else 'there'}"
        difference = first_difference(now[key], before[key], where)
        if difference:
            return difference
    return ""


def _read(path):
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
