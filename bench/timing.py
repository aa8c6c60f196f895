"""Times of GPU calls, taken in turns so that clocks, power and temperature are shared."""
import dataclasses
import math
import statistics
import time

import torch

METHOD = ("CUDA events around each call; after a warm-up, bursts of calls alternate over the implementations of a "
          "group; a burst is queued behind a spinning kernel, so launch overhead is left out; L2 is not flushed")
LONGEST_BURST = 100
SPIN_PER_SECOND = 2_000_000_000  # cycles; a little more than the clock rate only spins longer


@dataclasses.dataclass
class Times:
    samples: list

    @property
    def median(self):
        return statistics.median(self.samples)

    def row(self):
        return {"median_ms": self.median, "min_ms": min(self.samples), "max_ms": max(self.samples),
                "runs": len(self.samples)}


def warm_up(call):
    """Runs `call` twice; returns (seconds on the GPU, seconds to enqueue) of the second."""
    call()
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin = time.perf_counter()
    start.record()
    call()
    end.record()
    enqueue = time.perf_counter() - begin
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e-3, min(enqueue, 1e-3)


def burst(call, calls, enqueue):
    """Milliseconds of each of `calls` calls."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    torch.cuda._sleep(int(1.5 * calls * enqueue * SPIN_PER_SECOND))
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def burst_size(gpu_seconds, runs, seconds):
    """Calls of one burst: about a fifth of all, so that everything is measured in at least five turns."""
    wanted = max(runs, math.ceil(seconds / max(gpu_seconds, 1e-6)))
    return min(math.ceil(wanted / 5), LONGEST_BURST)


def round_robin(calls, runs, seconds):
    """Turns until each call was timed at least `runs` times and for `seconds` of GPU time.

    calls: {key: callable}, warmed up here. Returns {key: Times, or the exception that the call raised}.
    """
    out, todo = {}, {}
    for key, call in calls.items():
        try:
            gpu, enqueue = warm_up(call)
            todo[key] = call, burst_size(gpu, runs, seconds), enqueue
            out[key] = Times([])
        except Exception as error:  # a rival's failure is a result
            out[key] = error
    while todo:
        for key, (call, size, enqueue) in list(todo.items()):
            out[key].samples += burst(call, size, enqueue)
            if len(out[key].samples) >= runs and sum(out[key].samples) >= seconds * 1e3:
                del todo[key]
    return out
