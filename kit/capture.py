"""What happened in this process, as events on one clock: the kit's own spans, and torch.profiler's operators."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import profiler as autograd_profiler
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils._pytree import tree_leaves

from kit.spans import ClockAnchor, Span
from kit.trace import Event, Lane, check_launches, load_trace
from kit.trace.categories import Role, on_device, roles


@contextmanager
def operators(warm: Callable[[], object] | None = None, *, gpu: bool | None = None) -> Iterator[list[Span]]:
    """Record the operators that any thread of this process runs in this block, and the kernels of its GPUs.

    The list is filled when the block ends. torch.profiler alone is thread-local: of a pool's threads it would see
    nothing, hence ``profile_all_threads``. It writes wall-clock time; the anchor brings its events, the GPU's too, onto
    the clock of the spans, to within tens of microseconds.

    Args:
        warm: called before the block while the profiler starts up and throws away what it sees: its first events in a
            process are slow. With a GPU it is the same profile, since a second one may shift or lose kernels.
        gpu: whether to record GPUs too; by default where this process has begun to use one.

    Raises:
        TraceError: a kernel starts before its launch.
    """
    found: list[Span] = []
    config = _ExperimentalConfig(profile_all_threads=True)
    profiler: Any
    if torch.cuda.is_initialized() if gpu is None else gpu:  # type: ignore[no-untyped-call]
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        steps = schedule(wait=0, warmup=1, active=1) if warm else None
        # Accumulating is what one cycle does anyway; it is said so that torch 2.11 does not warn of the opposite.
        with profile(activities=activities, schedule=steps, experimental_config=config, acc_events=True) as profiler:
            if warm:
                warm()
                profiler.step()
            yield found
    else:  # the part of torch.profiler that records: the whole imports torch's compiler first, which takes a second
        if warm:
            with autograd_profiler.profile(use_kineto=True, experimental_config=config):
                warm()
        with autograd_profiler.profile(use_kineto=True, experimental_config=config) as profiler:
            yield found
    anchor = ClockAnchor.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = load_trace(path)
    check_launches(trace)
    shift = anchor.monotonic_ns - anchor.wall_ns
    for event, role in zip(trace.events(), roles(trace).tolist(), strict=True):
        if role != Role.BOOKKEEPING:  # not the recording itself
            name, category, start, duration, lane, correlation = event
            begin, place = start + shift, (int(lane.process), int(lane.thread))
            found.append(Span(name, category, begin, begin + duration, *place, "", correlation))


def synchronize(*values: Any) -> None:
    """Wait for the GPUs that these tensors are on, all of their streams: what has returned has only been launched.

    Of a call, give inputs and result: the result is on a device that has waited for every other one it came from.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    for gpu in {leaf.device for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.is_cuda}:
        torch.cuda.synchronize(gpu)


def span_events(spans: Iterable[Span]) -> Iterator[Event]:
    """Spans as events in lanes.

    This process's main thread is the caller; other threads keep the names that their executor gave them, which a
    profiler's spans do not have and take from the spans beside them.
    """
    spans = list(spans)
    main, here = threading.main_thread().name, os.getpid()
    labels = {
        (span.process, span.thread): "caller" if (span.process, span.thread_name) == (here, main) else span.thread_name
        for span in spans
        if span.thread_name
    }
    for span in spans:
        label = labels.get((span.process, span.thread), f"thread {span.thread}").replace("_", " ")
        if on_device(span.category):
            label = f"GPU {span.process} stream {span.thread}"
        lane = Lane(span.process, span.thread, label)
        duration = span.end_ns - span.start_ns
        yield Event(span.name, span.category, span.start_ns, duration, lane, span.correlation)
