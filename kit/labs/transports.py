"""How a tensor gets to another process and back: three transports, each with a warm worker at the other end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn

from kit.approaches import Workload
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.workers.echo import echo
from kit.executors.workers.process import starting
from kit.executors.workers.reports import starting_is_possible
from kit.measuring.comparison import Comparison
from kit.measuring.statistics import least_rounds
from kit.verbs import compare

PICKLED, QUEUED, SHARED = TRANSPORTS = ("pickled_copy", "tensor_queue", "shared_memory")
_IDENTITY = nn.Identity()


def transports(sizes: Sequence[int], rounds: int) -> dict[int, Comparison]:
    """A comparison of the transports for each size: from a tensor in this process to its copy back from a worker.

    ``pickled_copy`` goes through a queue as a NumPy array, ``tensor_queue`` through a queue of torch.multiprocessing,
    which makes new shared memory for each message, and ``shared_memory`` through memory that both sides keep.

    Args:
        sizes: bytes of the tensor, multiples of 4.
        rounds: of each comparison; the fewest that can tell three transports apart are measured anyway.

    Raises:
        WorkerError: a worker cannot be started, or died.
    """
    with ExitStack() as stack:
        pickled, queued = (stack.enter_context(_echo_worker()) for _ in range(2))
        pool = stack.enter_context(Processes(workers=1))

        def calls(x: Tensor) -> dict[str, Any]:
            return {
                PICKLED: lambda: torch.from_numpy(pickled(x.numpy())),
                QUEUED: lambda: queued(x.clone()).clone(),  # the clone is moved into shared memory, and not x
                SHARED: lambda: pool.run([Task("echo", _IDENTITY, (x,))])[0],
            }

        count = max(rounds, least_rounds(len(TRANSPORTS) - 1))
        return {size: _compared(size, calls(torch.rand(size // 4)), count) for size in sizes}


def milliseconds(comparison: Comparison, transport: str) -> float:
    """The median of a transport's rounds; NaN where it could not run."""
    timing = comparison[transport].timing
    return timing.median_ms if timing else float("nan")


def _compared(size: int, calls: dict[str, Any], rounds: int) -> Comparison:
    work = Workload("transports", None, (), inputs_description=f"a tensor of {size:,} bytes", approaches=calls)
    return compare(work, approaches=list(calls), rounds=rounds, progress=False)


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
