"""Recordings of any code, and of one call of a runner: the kit's spans, and the operators below them, as a trace.

Not ``recording.py``: importing a submodule of that name would put it in the place of the function ``kit.recording``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from kit import spans
from kit.approaches.runner import Runner
from kit.errors import KitError, ProfilerError, TaskError
from kit.executors import Task, thread_counts
from kit.executors.processes_cold import ProcessesCold
from kit.machine.about import about_here
from kit.profiler import Profile, profiled, synchronize, trace_of
from kit.reprs import one_line
from kit.trace import Trace, check_launches, load_trace, save_trace
from kit.trace.doubts import of_clocks
from kit.trace.kernels import Kernels, kernels

_PROFILES_OF_CUDA = count(1)


@one_line
@dataclass(eq=False)
class Recording:
    """What happens in a block, as a trace; :func:`recording` makes it."""

    _trace: Trace | None = field(default=None, repr=False)

    @property
    def trace(self) -> Trace:
        """The trace, which starts at 0.

        Raises:
            KitError: the block has not ended, or has ended with an exception.
        """
        if self._trace is None:
            raise KitError("this recording has no trace: read it behind the `with` block, that must end without error.")
        return self._trace


@contextmanager
def recording(
    name: str = "recording", *, operators: bool = True, shapes: bool = False, stacks: bool = False, memory: bool = False
) -> Iterator[Recording]:
    """Record what this block does: spans, and what torch.profiler sees in all threads of this process and on its GPUs.

    The block runs as it is: under the modes and thread counts that are set, without a warm-up. A process makes its
    first recording, and PyTorch its first operators, slower than later ones: run the block once before. Profiling costs
    some microseconds an operator.

    torch.profiler sees its own process only. Processes of the kit's executors send what they did; the work of any other
    process, such as a worker of a ``DataLoader``, is not in the trace.

    A GPU is recorded if the process has used it before the block. Its work is waited for at the end of the block. From
    the second recording of CUDA in one process on, kernels can be shifted or missing (PyTorch issues 175790 and
    192021), which a note of the trace says; :func:`kit.record` uses a process of its own instead.

    >>> layer, images = nn.Linear(8, 8), torch.rand(4, 8)
    >>> with kit.recording() as recording:
    ...     with kit.span("forward"):
    ...         loss = layer(images).sum()
    ...     loss.backward()
    >>> {"forward", "aten::linear"} <= set(recording.trace.names)
    True
    >>> figure = kit.timeline(recording.trace)

    Args:
        name: of the span around the whole block, in category "call".
        operators: run torch.profiler; without, spans only, with their true lengths.
        shapes: keep the shapes of each operator's inputs.
        stacks: record Python's functions too, each as an event. A block takes several times as long.
        memory: keep each allocation, and draw how much memory is allocated. PyTorch tells it to a profile of one thread
            only: operators of other threads are then missing, which a note of the trace says.

    Raises:
        ProfilerError: a profiler is on already, or another one runs within the block.
    """
    found = Recording()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    profiler: AbstractContextManager[Profile] = nullcontext(Profile())
    if operators:
        profiler = profiled(shapes=shapes, stacks=stacks, memory=memory)
    with spans.collect(operators=operators and not used) as log, profiler as profile, spans.span(name, "call"):
        yield found
        if used:
            torch.cuda.synchronize()
    trace = trace_of(log.spans, profile.trace, others=True)
    trace = _as_told(trace, log)
    notes = list(trace.notes)
    if used and operators and (number := next(_PROFILES_OF_CUDA)) > 1:
        notes.append(f"it is recording {number} of CUDA in its process: PyTorch can shift or lose kernels from 2 on.")
    if memory and operators:
        notes.append(
            "memory was recorded: PyTorch then records one thread only, so operators of other threads are missing."
        )
    first = int(trace.start_ns.min())
    trace = trace.shifted(-first)
    anchor = spans.ClockAnchor.now()
    found._trace = replace(
        trace,
        anchor=(anchor.monotonic_ns - first, anchor.wall_ns),
        notes=tuple(notes),
        about={**trace.about, **about_here().to_dict()},
    )


def record_call(runner: Runner, *, warm: bool = True, operators: bool = True) -> Trace:
    """Record one call in inference mode: spans, and what torch.profiler saw in all threads and worker processes.

    Profiling costs a few microseconds an operator, and the better part of a second where a process does it for the
    first time, so such a call is longer than a measured one. Use it for shares and order; take times from a comparison,
    or from spans without operators.

    On a GPU, kernels are recorded too, on the same clock, in one lane per stream. Then warm-up and recording are one
    profile, and the process must not have made another profile before: see :func:`record_fresh`.

    Args:
        warm: make two calls before, one of them while the profiler starts up (its first events are slow). Otherwise the
            call is recorded as it comes, start-up included.
        operators: run torch.profiler; without, the spans have their true lengths.

    Raises:
        TraceError: a kernel starts before its launch.
    """
    with thread_counts.intra_op_threads(runner.intra_op_threads), torch.inference_mode():
        if warm:
            runner()
            runner()
        trace = _record(runner, warm=warm, operators=operators)
    return replace(trace, about={**trace.about, **about_here().to_dict()})


def record_kernels(runner: Runner) -> Kernels | None:
    """The kernels of one call, a warm one, under the caller's modes; None where a profiler is on, also by the call.

    It costs that call and some milliseconds. GPUs are left out of it, so that later profiles can be trusted: which
    operator ran there is known without.
    """
    try:
        return kernels(_record(runner, warm=False, operators=True, gpu=False))
    except ProfilerError:
        return None


def record_fresh(record: Callable[[], Trace], timeout: float = 600.0) -> Trace:
    """Call ``record`` in a new process, and return its trace, which is sent back as a file.

    Of several profiles of CUDA in one process, the later ones can have their kernels shifted or lost (PyTorch issues
    175790 and 192021). So each is recorded in a new process: this costs the imports, a CUDA context, and a second copy
    of the model in GPU memory during the recording.

    Args:
        record: something that cloudpickle can send. Tensors in it come out on the device that they were on.
        timeout: seconds that all of it may take.

    Raises:
        KitError: as ``record`` raises it.
        TaskError: ``record`` raised something else, which is the cause.
        WorkerError: the process died, or took too long.
        TransferError: the model or its inputs cannot be sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        try:
            ProcessesCold(timeout).run([Task("recording", _save, (record, path))])
        except TaskError as error:
            if isinstance(error.__cause__, KitError):
                raise error.__cause__ from error
            raise
        return load_trace(path)


def on_gpu(*values: Any) -> bool:
    """Whether any tensor in these, or any weight of a model, is on a GPU."""
    weights = [list(value.parameters()) + list(value.buffers()) for value in values if isinstance(value, nn.Module)]
    return any(isinstance(leaf, torch.Tensor) and leaf.is_cuda for leaf in tree_leaves([*values, *weights]))


def _save(record: Callable[[], Trace], path: Path) -> None:
    save_trace(record(), path)


def _record(runner: Runner, *, warm: bool, operators: bool, gpu: bool | None = None) -> Trace:
    def warm_up() -> None:
        # In a log of its own. Workers make a first profile too, unless a second one is not to be trusted.
        with spans.collect(operators=operators and not on_gpu(*runner.inputs)):
            synchronize(runner.inputs, runner())

    profiler: AbstractContextManager[Profile] = nullcontext(Profile())
    if operators:
        profiler = profiled(warm_up if warm else None, gpu=gpu)
    in_workers = operators and (gpu is None or not on_gpu(*runner.inputs))
    with spans.collect(operators=in_workers) as log, profiler as profile, spans.span("call", "call"):
        synchronize(runner.inputs, runner())
    check_launches(profile.trace)
    return _as_told(trace_of(log.spans, profile.trace, others=False), log)


def _as_told(trace: Trace, log: spans.SpanLog) -> Trace:
    """The trace with what executors say of their spans, and with what is known of the clocks of other hosts."""
    trace = replace(trace, about={**trace.about, **log.about})
    if not log.clocks:
        return trace
    trace = replace(trace, about={**trace.about, "clocks_ns": dict(log.clocks)})
    return replace(trace, notes=(*trace.notes, *of_clocks(trace)))
