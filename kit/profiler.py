"""The adapter of torch.profiler: its operators and kernels as spans, on the clock of the kit's own spans.

Also what turns spans of either kind into the events of a trace, and the wait for GPUs at the end of a measured call.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import profiler as autograd_profiler
from torch.profiler import ProfilerActivity, schedule
from torch.profiler import profile as torch_profile
from torch.utils._pytree import tree_leaves

from kit.errors import ProfilerError
from kit.spans import ClockAnchor, Span
from kit.trace import Event, Lane, Trace, load_trace
from kit.trace.categories import Role, on_device, roles
from kit.trace.columns import concatenate, with_lanes


@dataclass(eq=False)
class Profile:
    """What a profiler saw; its trace is there when the profile has ended."""

    trace: Trace = field(default_factory=lambda: Trace.build([]))  # on the clock of the spans

    def spans(self) -> Iterator[Span]:
        """Its events as spans, as another process can send them; their threads have no name."""
        for name, category, start, duration, lane, correlation in self.trace.events():
            place = (int(lane.process), int(lane.thread))
            yield Span(name, category, start, start + duration, *place, "", correlation)


@contextmanager
def profiled(
    warm: Callable[[], object] | None = None,
    *,
    gpu: bool | None = None,
    shapes: bool = False,
    stacks: bool = False,
    memory: bool = False,
) -> Iterator[Profile]:
    """Run torch.profiler in this block: the operators of all threads of this process, and the kernels of its GPUs.

    By default torch.profiler records the calling thread only, and would see nothing of a pool's threads, hence
    ``profile_all_threads``. It writes wall-clock time. A clock anchor brings its events, those of the GPU too, onto the
    clock of the spans, to within tens of microseconds.

    Args:
        warm: called before the block, while the profiler starts and its events are thrown away: the first events of a
            process are slow. On a GPU this is the same profile, since a second profile may shift or lose kernels.
        gpu: whether to record GPUs too; None: if this process has begun to use one.
        shapes, stacks, memory: what torch.profiler calls ``record_shapes``, ``with_stack`` and ``profile_memory``. A
            profile of all threads has no memory in it (torch 2.13), so one with memory is of the calling thread only.

    Raises:
        ProfilerError: a profiler is on already, or another one ran within the block, and ended it.
    """
    if is_on():
        raise ProfilerError(
            "a profiler is on already, and PyTorch runs one at a time: end it first, or record with operators=False."
        )
    profile, profiler = Profile(), None
    options: dict[str, Any] = {"record_shapes": shapes, "with_stack": stacks, "profile_memory": memory}
    options["experimental_config"] = _ExperimentalConfig(profile_all_threads=not memory)
    if torch.cuda.is_initialized() if gpu is None else gpu:  # type: ignore[no-untyped-call]
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        steps = schedule(wait=0, warmup=1, active=1) if warm else None
        # Accumulating is what one cycle does anyway; it is said so that torch 2.11 does not warn of the opposite.
        with _once(torch_profile(activities=activities, schedule=steps, acc_events=True, **options)) as profiler:
            if warm:
                warm()
                profiler.step()
            yield profile
    else:  # the part of torch.profiler that records: the whole imports torch's compiler first, which takes a second
        if warm:
            with autograd_profiler.profile(use_kineto=True, **options):
                warm()
        with _once(autograd_profiler.profile(use_kineto=True, **options)) as profiler:
            yield profile
    anchor = ClockAnchor.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = load_trace(path)
    trace = trace.take(np.flatnonzero(roles(trace) != Role.BOOKKEEPING))  # not the recording itself
    profile.trace = trace.shifted(anchor.monotonic_ns - anchor.wall_ns)


def begin() -> None:
    """Start PyTorch's profiler library in this thread, which should be the one that imported torch.

    Started by another thread, it writes to stderr that it should not be. It takes some milliseconds, once.
    """
    if not is_on():
        with autograd_profiler.profile(use_kineto=True):
            pass


def is_on() -> bool:
    """Whether torch.profiler is on. PyTorch's own flag for that is of a thread, and not set by one of all threads."""
    return autograd_profiler._is_profiler_enabled


@contextmanager
def _once(profiler: Any) -> Iterator[Any]:
    """Run a profiler, unless another one within the block has ended it: PyTorch dies where that is ended again."""
    with ExitStack() as ending:
        ending.push(profiler)
        profiler.__enter__()
        try:
            yield profiler
        finally:
            if not is_on():
                ending.pop_all()
                raise ProfilerError(
                    "another profiler ran within this recording and has ended it, since PyTorch runs one at a time: "
                    "leave one of them out."
                )


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
    labels = _labels(spans)
    for span in spans:
        place = (span.process, span.thread)
        lane = Lane(*place, labels.get(place, f"thread {span.thread}"))
        yield Event(span.name, span.category, span.start_ns, span.end_ns - span.start_ns, lane, span.correlation)


def trace_of(spans: Iterable[Span], profile: Trace, *, others: bool) -> Trace:
    """Spans, and below them what a profiler saw in the same threads, and on devices.

    Args:
        profile: on the clock of the spans.
        others: with what the profiler saw in threads that have no span.
    """
    spans = list(spans)
    labels = _labels(spans)
    named = [labels.get((lane.process, lane.thread)) for lane in profile.lanes]
    on_devices = {profile.lane[i] for i in np.flatnonzero(_on_devices(profile))}
    seen = [i for i, label in enumerate(named) if others or label is not None or i in on_devices]
    lanes = [lane._replace(label=label or lane.label) for lane, label in zip(profile.lanes, named, strict=True)]
    below = replace(profile.select(lanes=seen), lanes=tuple(lanes))
    return _by_host(concatenate([Trace.build(span_events(spans)), below]), spans)


def trace_of_spans(spans: Iterable[Span]) -> Trace:
    """Spans as a trace; the lanes of each host are together."""
    spans = list(spans)
    return _by_host(Trace.build(span_events(spans)), spans)


def _labels(spans: Sequence[Span]) -> dict[tuple[int | str, int | str], str]:
    """What a thread is called, by process and thread; with its host before, if the spans are of several hosts."""
    main, here = threading.main_thread().name, os.getpid()
    callers: dict[tuple[int | str, str], str] = {(here, main): "caller"}
    own = f"{socket.gethostname()}: " if any(span.host for span in spans) else ""
    return {
        (span.process, span.thread): (f"{span.host}: " if span.host else own)
        + callers.get((span.process, span.thread_name), span.thread_name).replace("_", " ")
        for span in spans
        if span.thread_name
    }


def _by_host(trace: Trace, spans: Sequence[Span]) -> Trace:
    """The same trace without unused lanes, and with the lanes of each host together: first those of this one."""
    host_of = {span.process: span.host for span in spans}
    hosts = ["", *dict.fromkeys(filter(None, host_of.values()))]
    return with_lanes(
        trace, sorted(trace.used_lanes, key=lambda lane: hosts.index(host_of.get(trace.lanes[lane].process, "")))
    )


def _on_devices(trace: Trace) -> NDArray[np.bool_]:
    return np.array([on_device(category) for category in trace.categories], bool)[trace.category]
