"""seer distill and seer pretrain by several processes: the result of one, the end of all when one dies, exact resume."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

BUILD = pathlib.Path(os.environ.get("SEER_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
TORCHRUN = pathlib.Path(sys.executable).parent / "torchrun"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "text.txt"
    path.write_bytes((BUILD / "default_text.txt").read_bytes()[:200_000])
    return path


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Gloo on CPUs, NCCL on GPUs."""
    if request.param == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("no two GPUs")
    return request.param


def arguments(text, out, device="cpu", steps=4, **more):
    settings = {"data": text, "out": out, "steps": steps, "length": 256, "sequences": 4, "micro-batch": 1,
                "dtype": "f32" if device == "cpu" else "bf16", "device": device, "threads": 1,
                **more}
    return [str(BUILD / "seer"), "distill", *(str(x) for key, value in settings.items() for x in (f"--{key}", value))]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in more.items()}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(rank, port, args, size=2, **more):
    """One of several processes, as torchrun would start it."""
    env = environment(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **more)
    return subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(out, process):
    while not any((out / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def said_by(process):
    """Without the lines of its progress."""
    return [line for line in process.stderr.read().splitlines() if not line.startswith("distill: ")]


def gates_of(out):
    return load_file(out / "attn_gate_weights.safetensors")


LOOKUPS = ["--block", "16", "--lookup-heads", "0.1", "--lookup-rank", "16", "--lookup-windows", "3"]


@pytest.mark.parametrize("flags", [[], ["--stream"], LOOKUPS])
def test_two_processes_give_what_one_gives(text, tmp_path, device, flags):
    more = {}
    if device == "cuda" and flags is LOOKUPS:
        flags, more = flags[2:], {"length": 1024}  # of blocks that its kernels take
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run([*arguments(text, one, device, **more), *flags], env=environment(), check=True, capture_output=True)
    subprocess.run([TORCHRUN, "--no-python", "--nproc_per_node", "2", *arguments(text, two, device, **more), *flags],
                   env=environment(), check=True, capture_output=True, timeout=300)
    alone, shared = gates_of(one), gates_of(two)
    assert alone.keys() == shared.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=1e-5)
    assert_same_metrics(one, two, device)


def tolerance(device):
    """Of metrics, relative, by the order of sums: bf16 on GPUs."""
    return 1e-4 if device == "cpu" else 2e-3


def assert_same_metrics(one, two, device="cpu"):
    """Up to the order of sums."""
    lines = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (one, two)]
    assert len(lines[0]) == len(lines[1])
    for a, b in zip(*lines):
        assert a["step"] == b["step"] and a.get("tokens") == b.get("tokens")
        for key in a.keys() & {"loss", "grad_norm", "valid_text"}:
            assert a[key] == pytest.approx(b[key], rel=tolerance(device))


def test_two_processes_pretrain_as_one_does_and_killed_they_go_on(text, tmp_path, device):
    def command(out):
        settings = {"data": text, "valid": text, "out": out, "steps": 10, "save-every": 1, "hidden": 64, "layers": 1,
                    "heads": 2, "kv-heads": 1, "head-dim": 64, "intermediate": 64, "lengths": "64,128", "stage-ends": .5,
                    "tokens-per-step": 512, "valid-tokens": 512, "device": device, "threads": 1}
        words = (str(x) for key, value in settings.items() for x in (f"--{key}", value))
        return [str(BUILD / "seer"), "pretrain", *words, "--deterministic"]

    one, whole, killed = tmp_path / "one", tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(one), env=environment(), check=True, capture_output=True)
    outputs = run_all(command(whole))
    assert "10 steps" in outputs[0][0] and outputs[1][0] == "", outputs
    assert_same_metrics(one, whole, device)
    port = free_port()
    processes = [start(rank, port, command(killed)) for rank in (0, 1)]
    wait_for_checkpoint(killed, processes[1])
    processes[1].send_signal(signal.SIGKILL)
    assert processes[0].wait(timeout=120) == 1
    run_all(command(killed))
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()


def run_all(command):
    """Two processes to their end: what they print and say."""
    port = free_port()
    processes = [start(rank, port, command) for rank in (0, 1)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def test_validation_is_shared_and_gives_what_one_gives(text, tmp_path, device):
    """Five windows of one held-out text and one of another, by two processes; a broken document is told once."""
    lines = [json.dumps({"text": text.read_text()[i:i + 4_000]}) for i in range(0, 12_000, 4_000)]
    (tmp_path / "many.jsonl").write_text("\n".join([*lines, "{"]))
    (tmp_path / "short.txt").write_text(text.read_text()[-1_200:])
    with_validation = lambda out: [
        *arguments(text, out, device, **{"valid-every": 2, "valid-sequences": 5, "cache": tmp_path / "cache"}),
        "--valid", f"{tmp_path / 'many.jsonl'},{tmp_path / 'short.txt'}"]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = subprocess.run(with_validation(one), env=environment(), check=True, capture_output=True, text=True)
    outputs = run_all(with_validation(two))

    a, b = ([line for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "loss" not in line]
            for out in (one, two))
    names = {f"valid_{metric}_{file}" for metric in ("loss", "kl_per_row") for file in ("many", "short")}
    assert [line["step"] for line in a] == [line["step"] for line in b] == [2, 4]
    for alone_line, shared_line in zip(a, b):
        assert alone_line.keys() == shared_line.keys() == {"step", *names}
        for name in names:
            assert shared_line[name] == pytest.approx(alone_line[name], rel=tolerance(device)), name
    # Only the first process writes and speaks.
    skipped = "many.jsonl: 1 of 4 documents is skipped: line 4 is not valid JSON"
    assert skipped in alone.stderr and skipped in outputs[0][1] and "1 document skipped" in outputs[0][0]
    assert outputs[1] == ("", "")


@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_process_ends_the_others_and_the_run_goes_on(text, tmp_path, device, dead):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = lambda out: [start(rank, port, arguments(text, out, device, steps=12, **{"save-every": 1})) for rank in (0, 1)]
    port = free_port()
    for process in run(whole):
        assert process.wait(timeout=300) == 0, process.stderr.read()

    port = free_port()
    processes = run(killed)
    end, other = processes[dead], processes[1 - dead]
    wait_for_checkpoint(killed, end)
    end.send_signal(signal.SIGKILL)
    assert other.wait(timeout=120) == 1
    said = said_by(other)
    assert len(said) == 1 and "start all of them again" in said[0], said
    assert re.search(rf"rank {dead}\)? does not answer any more", said[0]), said

    port = free_port()
    for process in run(killed):
        assert process.wait(timeout=300) == 0, process.stderr.read()
    before, after = gates_of(whole), gates_of(killed)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("still", [0, 1])
def test_a_process_that_stands_still_ends_the_others(text, tmp_path, device, still):
    """Without a word, as on a machine that has lost its power: no connection breaks. Rank 0 holds the store."""
    port, out = free_port(), tmp_path / "out"
    processes = [start(rank, port, arguments(text, out, device, steps=200, heartbeat=3, **{"save-every": 1})) for rank in (0, 1)]
    stopped, moving = processes[still], processes[1 - still]
    wait_for_checkpoint(out, stopped)
    stopped.send_signal(signal.SIGSTOP)
    try:
        assert moving.wait(timeout=60) == 1
        said = said_by(moving)
        assert len(said) == 1 and re.search(rf"rank {still}\)? does not answer any more", said[0]), said
    finally:
        stopped.kill()


def test_output_that_nobody_reads_ends_a_process_quietly(text, tmp_path):
    """Though broken sockets are errors."""
    port = free_port()
    processes = [start(rank, port, arguments(text, tmp_path / "out", heartbeat=3)) for rank in (0, 1)]
    processes[0].stdout.close()
    assert processes[0].wait(timeout=120) == -signal.SIGPIPE
    assert said_by(processes[0]) == []
    processes[1].wait(timeout=120)


def test_machines_that_count_restarts_differently_find_each_other(text, tmp_path):
    """In a store that outlives the processes, as torchrun's does, with what the last ones have left."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("seer/hello/1", "of-a-process-that-is-gone")
    for count in range(2):
        processes = [start(rank, store.port, arguments(text, tmp_path / f"out{count}", steps=2),
                           TORCHELASTIC_USE_AGENT_STORE=True, TORCHELASTIC_RESTART_COUNT=rank) for rank in (0, 1)]
        for process in processes:
            assert process.wait(timeout=120) == 0, process.stderr.read()


def test_torchrun_starts_all_again(text, tmp_path, device):
    """One process is killed once; torchrun's next round goes on from the last checkpoint, whatever the first one discarded."""
    out = tmp_path / "again"
    run = subprocess.Popen([TORCHRUN, "--no-python", "--nproc_per_node", "2", "--max-restarts", "1",
                            *arguments(text, out, device, steps=12, **{"save-every": 1}), "--restart"], env=environment(),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(out, run)
    children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    printed, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert "12 steps" in printed and "going on from step" in said


def test_errors(text, tmp_path):
    port = free_port()
    processes = [start(rank, port, arguments(text, tmp_path / "few", sequences=1)) for rank in (0, 1)]
    for process in processes:
        assert process.wait(timeout=120) == 1
    assert "too few for 2 processes" in processes[0].stderr.read()

    result = subprocess.run(arguments(text, tmp_path / "none"), env=environment(WORLD_SIZE=2, RANK=0), text=True,
                            capture_output=True)
    assert result.returncode == 1 and "MASTER_PORT is not" in result.stderr
    result = subprocess.run(arguments(text, tmp_path / "none"), text=True, capture_output=True,
                            env=environment(WORLD_SIZE=2, RANK=0, MASTER_ADDR="127.0.0.1", MASTER_PORT=70000))
    assert result.returncode == 1 and "MASTER_PORT is 70000, want 1 to 65535" in result.stderr
    result = subprocess.run(arguments(text, tmp_path / "none"), env=environment(WORLD_SIZE="two"), text=True,
                            capture_output=True)
    assert result.returncode == 1 and 'WORLD_SIZE is "two"' in result.stderr
