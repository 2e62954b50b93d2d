"""The adapter of torch.profiler: its operators and kernels as spans, on the clock of the kit's own spans.

Also what turns spans of either kind into the events of a trace, and the wait for GPUs at the end of a measured call.
"""

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
def profiled(warm: Callable[[], object] | None = None, *, gpu: bool | None = None) -> Iterator[list[Span]]:
    """Run torch.profiler in this block: the operators of all threads of this process, and the kernels of its GPUs.

    The block gets a list, which is filled when the block ends. By default torch.profiler records the calling thread
    only, and would see nothing of a pool's threads, hence ``profile_all_threads``. It writes wall-clock time. A clock
    anchor brings its events, those of the GPU too, onto the clock of the spans, to within tens of microseconds.

    Args:
        warm: called before the block, while the profiler starts and its events are thrown away: the first events of a
            process are slow. On a GPU this is the same profile, since a second profile may shift or lose kernels.
        gpu: whether to record GPUs too; None: if this process has begun to use one.

    Raises:
        TraceError: a kernel starts before its launch.
    """
    operators: list[Span] = []
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
            yield operators
    else:  # the part of torch.profiler that records: the whole imports torch's compiler first, which takes a second
        if warm:
            with autograd_profiler.profile(use_kineto=True, experimental_config=config):
                warm()
        with autograd_profiler.profile(use_kineto=True, experimental_config=config) as profiler:
            yield operators
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
            operators.append(Span(name, category, begin, begin + duration, *place, "", correlation))


def synchronize(*values: Any) -> None:
    """Wait for all streams of the GPUs that these tensors are on: a call returns when its kernels are launched.

    Give the inputs and the result of a call: the result's device has waited for every other device it depends on.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    for gpu in {leaf.device for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.is_cuda}:
        torch.cuda.synchronize(gpu)


def span_events(spans: Iterable[Span]) -> Iterator[Event]:
    """Spans as events in lanes.

    This process's main thread is the caller. Other threads keep the names that their executor gave them. A profiler's
    spans have no thread name, and take that of the kit's own spans on the same thread.
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
