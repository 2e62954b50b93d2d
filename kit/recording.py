"""One call of a runner as a trace: the kit's spans from every thread, and the operators below them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from kit import spans
from kit.approaches.runner import Runner
from kit.errors import KitError, TaskError
from kit.executors import Task, thread_counts
from kit.executors.processes_cold import ProcessesCold
from kit.machine.about import about_here
from kit.profiler import profiled, span_events, synchronize
from kit.trace import Trace, load_trace, save_trace
from kit.trace.categories import on_device
from kit.trace.kernels import Kernels, kernels


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
        trace = Trace.build(span_events(_record(runner, warm=warm, operators=operators)))
    return replace(trace, about=about_here().to_dict())


def record_kernels(runner: Runner) -> Kernels | None:
    """The kernels of one call, a warm one, under the caller's modes; None where a profiler is on already.

    It costs that call and some milliseconds. GPUs are left out of it, so that later profiles can be trusted: which
    operator ran there is known without.
    """
    if torch._C._autograd._profiler_enabled():
        return None
    log = _record(runner, warm=False, operators=True, gpu=False)
    return kernels(Trace.build(span_events(log)))


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


def _record(runner: Runner, *, warm: bool, operators: bool, gpu: bool | None = None) -> list[spans.Span]:
    def warm_up() -> None:
        # In a log of its own. Workers make a first profile too, unless a second one is not to be trusted.
        with spans.collect(operators=operators and not on_gpu(*runner.inputs)):
            synchronize(runner.inputs, runner())

    profiler: AbstractContextManager[list[spans.Span]] = nullcontext([])
    if operators:
        profiler = profiled(warm_up if warm else None, gpu=gpu)
    in_workers = operators and (gpu is None or not on_gpu(*runner.inputs))
    with spans.collect(operators=in_workers) as log, profiler as found, spans.span("call", "call"):
        synchronize(runner.inputs, runner())
    own = {(span.process, span.thread) for span in log.spans}
    return log.spans + [s for s in found if (s.process, s.thread) in own or on_device(s.category)]
