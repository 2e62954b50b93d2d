"""The experiments and exercises of notebook 02."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, multiprocessing, nn

from kit.errors import TransferError
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.workers.echo import echo
from kit.executors.workers.pickling import dump, load
from kit.executors.workers.process import starting
from kit.executors.workers.reports import starting_is_possible
from kit.labs.checks import check
from kit.text import markdown_table
from kit.trace import Trace

# Name and what it is, in the order in which they happen to a process.
PHASES = {
    "start": "the caller pickles model and inputs, and starts the process",
    "spawn": "a new Python interpreter starts and reads what it was given",
    "imports": "it imports torch",
    "load": "it unpickles the model and the inputs",
    "compute": "it runs the stream",
    "send": "the result goes back through the queue",
    "join": "the caller waits for the processes to end",
}


def phases_ms(trace: Trace) -> dict[str, dict[str, float]]:
    """Milliseconds of each phase of a recorded call by lane: ``{"process 0": {"spawn": 40.1, ...}, "caller": ...}``."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in trace.events():
        if event.category in ("startup", "transfer", "task"):
            phase = "compute" if event.category == "task" else event.name
            found[event.lane.label][phase] += event.duration_ns / 1e6
    return {lane: dict(phases) for lane, phases in sorted(found.items())}


def phases_table(trace: Trace) -> str:
    """Where the time of a recorded call went, as a Markdown table with a column for each lane."""
    found = phases_ms(trace)
    rows = []
    for phase, what in PHASES.items():
        cells = [f"{phases[phase]:.1f} ms" if phase in phases else "" for phases in found.values()]
        if any(cells):
            rows.append((phase, *cells, what))
    return markdown_table(("phase", *found, "what happens"), f"l{'r' * len(found)}l", rows)


def round_trips(sizes: Sequence[int], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Microseconds from a tensor in this process to its copy back from a warm worker, by how it was transferred.

    Args:
        sizes: bytes of the tensor, multiples of 4.
        rounds: interleaved rounds for each size; the median counts.
    """
    order = random.Random(seed)
    with ExitStack() as stack:
        pickled, shared = (stack.enter_context(_echo_worker()) for _ in range(2))
        pool = stack.enter_context(Processes(workers=1))
        calls: dict[str, Callable[[Tensor], Any]] = {
            "Queue, pickled copy (NumPy)": lambda x: torch.from_numpy(pickled(x.numpy())),
            "Queue of tensors (torch.multiprocessing)": lambda x: shared(x.clone()).clone(),
            "shared memory, reused (processes)": lambda x: pool.run([Task("echo", _IDENTITY, (x,))])[0],
        }
        result: dict[str, list[float]] = {name: [] for name in calls}
        for size in sizes:
            x = torch.rand(size // 4)
            times: dict[str, list[int]] = {name: [] for name in calls}
            for turn in range(rounds + 2):  # two to warm up
                for name in order.sample(list(calls), len(calls)):
                    start = time.perf_counter_ns()
                    back = calls[name](x)
                    took = time.perf_counter_ns() - start
                    times[name].append(took)
                    if turn < 2 and not torch.equal(back, x):
                        raise AssertionError(f"{name} changed the tensor")
            for name in calls:
                result[name].append(float(np.median(times[name][2:])) / 1000)
    return result


_IDENTITY = nn.Identity()


@contextmanager
def _echo_worker() -> Iterator[Callable[[Any], Any]]:
    """A function that sends something to a warm worker through one queue and gets it back through another."""
    context = multiprocessing.get_context("spawn")
    with starting_is_possible("a worker process"), starting():
        requests, replies = context.Queue(), context.Queue()
        process = context.Process(target=echo, args=(requests, replies), daemon=True)
        process.start()

    def send(message: Any) -> Any:
        requests.put(message)
        return replies.get(timeout=60)

    try:
        yield send
        requests.put(None)
        process.join(5)
    finally:
        process.kill()
        process.join()
        process.close()
        for queue in (requests, replies):
            queue.close()
            queue.join_thread()


class Guarded(nn.Module):
    """The branch of the exercise: a convolution behind a lock, which no other process can have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            out: Tensor = self.conv(x)
            return out


@check
def check_break_even(calls: Callable[[float, float, float], float | None]) -> str | None:
    """``calls(start_up, sequential, parallel)``: from how many calls on warm workers have paid for their start."""
    if not isinstance(calls(1000.0, 10.0, 5.0), int | float):
        return f"it gives {calls(1000.0, 10.0, 5.0)!r} and not a number: is there a return?"
    if calls(1000.0, 10.0, 5.0) != 200:
        return "a start of 1000 ms and a gain of 5 ms a call: break-even is after 200 calls."
    if calls(1000.0, 10.0, 7.0) != 334:
        return "1000 ms at 3 ms a call are 333.3 calls: round up, since there is no third of a call."
    never = calls(1000.0, 5.0, 5.0)
    if never != math.inf or calls(1000.0, 5.0, 8.0) != math.inf:
        return "where the workers are not faster than sequential, no number of calls is enough: return math.inf."
    return None


@check
def check_travels(model: Any) -> str | None:
    """A :class:`Guarded` (or a subclass) that can be sent to another process and still works there."""
    if not isinstance(model, Guarded):
        return "give an object of a subclass of Guarded, so that everything else stays as it is."
    try:
        body = dump(model)
    except TransferError as error:
        return f"it cannot travel yet: {error}"
    copy = load(body)
    if not hasattr(copy, "lock"):
        return "it travels, but arrives without a lock: make a new one in __setstate__."
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if not torch.equal(copy(x), model(x)):
            return "it travels, but computes something else there: pass the rest of the state on unchanged."
    return None
