"""Runs of training as processes: stopped by signals, damaged, pointed at folders of others."""
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file

from conftest import BUILD, ROOT, usual_signals
from test_cli import error_of
from test_ranks import arguments, environment, free_port, start

REFERENCE = ROOT / "assets" / "reference"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "text.txt"
    path.write_bytes((BUILD / "default_text.txt").read_bytes()[:100_000])
    return path


def begin(args, **more):
    return subprocess.Popen(args, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=usual_signals)


def wait_for_step(out, process):
    """Until the first lines of metrics are there."""
    path = out / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def steps_of(out):
    return sorted(int(path.stem.split("-")[1]) for path in (out / "checkpoints").iterdir())


SHORT = {"sequences": 1, "steps": 120, "save-every": 1000}


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(text, tmp_path, number, status):
    command = arguments(text, tmp_path / "out", **SHORT)
    process = begin(command)
    wait_for_step(tmp_path / "out", process)
    process.send_signal(number)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    [step] = steps_of(tmp_path / "out")
    line = said.splitlines()[-1]
    assert f"step {step} of 120 is saved" in line and "the same command goes on from there" in line
    assert printed == "" and not (tmp_path / "out" / "config.json").exists()
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert f"going on from step {step}" in again.stderr
    whole = arguments(text, tmp_path / "whole", **SHORT)
    subprocess.run(whole, env=environment(), check=True, capture_output=True)
    stopped, straight = (load_file(tmp_path / name / "attn_gate_weights.safetensors") for name in ("out", "whole"))
    assert all((straight[name] == weight).all() for name, weight in stopped.items())


def test_a_second_signal_ends_at_once(text, tmp_path):
    process = begin(arguments(text, tmp_path / "out", steps=1, sequences=4096))  # a step of many minutes
    while not (tmp_path / "out" / "run.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, -signal.SIGTERM)


def test_all_ranks_stop_after_the_same_step(text, tmp_path):
    command = arguments(text, tmp_path / "out", **{**SHORT, "sequences": 2})
    port = free_port()
    ranks = [start(rank, port, command) for rank in (0, 1)]
    wait_for_step(tmp_path / "out", ranks[0])
    ranks[1].send_signal(signal.SIGTERM)  # one hears it, all stop
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [143, 143], said
    [step] = steps_of(tmp_path / "out")
    assert f"step {step} of 120 is saved" in said[0].splitlines()[-1] and "saved" not in said[1]
    port = free_port()
    ranks = [start(rank, port, command) for rank in (0, 1)]
    said = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert f"going on from step {step}" in said[0]


def distill(seer, text, out, *flags, ok=True, **more):
    settings = {"data": text, "out": out, "cache": out.parent / "cache", "length": 128, "sequences": 1, "block": 16,
                "device": "cpu", "dtype": "f32", "threads": 1, **more}
    return seer("distill", *(x for key, value in settings.items() for x in (f"--{key.replace('_', '-')}", value)), *flags, ok=ok)


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(seer, text, tmp_path):
    out = tmp_path / "out"
    distill(seer, text, out, steps=6, save_every=3)
    want = load_file(out / "attn_gate_weights.safetensors")
    newest = out / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(b"")
    said = distill(seer, text, out, steps=6, save_every=3).stderr
    [line] = [line for line in said.splitlines() if str(newest) in line]
    assert "is damaged: " in line and "going on from the one before, step 3" in line
    found = load_file(out / "attn_gate_weights.safetensors")
    assert all((want[name] == weight).all() for name, weight in found.items())
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    message = error_of(distill(seer, text, out, steps=6, save_every=3, ok=False))
    assert "is damaged: " in message and f"delete {out / 'checkpoints'} to begin again" in message


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [[], ["--restart"]])
def test_folders_of_others_are_not_overwritten(seer, text, tmp_path, flags):
    for name in ("model", "gates"):
        shutil.copytree(REFERENCE if name == "model" else REFERENCE / "gates", tmp_path / name)
    pretrain = ["--hidden", 64, "--layers", 1, "--lengths", 128, "--tokens-per-step", 128, "--steps", 1]
    for out in (tmp_path / "model", tmp_path / "gates"):
        before = snapshot(out)
        for verb, more in (("pretrain", pretrain), ("distill", ["--steps", 1])):
            message = error_of(seer(verb, "--data", text, "--out", out, *more, *flags, ok=False))
            assert "choose another folder" in message and str(out) in message
        assert snapshot(out) == before
    # A run of the other kind.
    distill(seer, text, tmp_path / "run", steps=1)
    before = snapshot(tmp_path / "run")
    message = error_of(seer("pretrain", "--data", text, "--out", tmp_path / "run", *pretrain, *flags, ok=False))
    assert "is not of a run of `seer pretrain`" in message
    assert snapshot(tmp_path / "run") == before


def test_what_would_train_nothing_is_refused_before_work(seer, text, tmp_path):
    message = error_of(distill(seer, text, tmp_path / "out", length=8, block=64, ok=False), 2)
    assert "one block of 64" in message
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_what_a_run_takes_is_said_before_it_begins(seer, text, tmp_path):
    said = distill(seer, text, tmp_path / "out", steps=2).stderr.splitlines()
    first = said.index("distill: 2 steps of 128 tokens (1 sequence of 128 tokens), 256 in all")
    assert said[first + 1].startswith("distill: about ") and " of memory: weights " in said[first + 1]
    assert not any("loss" in line for line in said[: first + 2])


def test_with_closed_streams_metrics_hold_metrics(text, tmp_path):
    def close():
        for descriptor in (0, 1, 2):
            os.close(descriptor)
    command = arguments(text, tmp_path / "out", steps=12, sequences=1)
    subprocess.run(command, env=environment(), preexec_fn=close, timeout=300)  # its result is printed to nobody: an error
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
