"""What happened in this process, as events on one clock: the kit's own spans, and torch.profiler's operators."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from kit.spans import ClockAnchor, Span
from kit.trace import Event, Lane, load_trace


@contextmanager
def operators() -> Iterator[list[Span]]:
    """Record the operators that any thread of this process runs in this block, and the kernels of its GPU.

    The list is filled when the block ends. torch.profiler alone is thread-local: of a pool's threads it would see
    nothing, hence ``profile_all_threads``. It writes wall-clock time; the anchor brings its events onto the clock of
    the spans, to within tens of microseconds.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    found: list[Span] = []
    with profile(activities=activities, experimental_config=_ExperimentalConfig(profile_all_threads=True)) as profiler:
        yield found
    anchor = ClockAnchor.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = load_trace(path)
    shift = anchor.monotonic_ns - anchor.wall_ns
    for name, category, start, duration, lane in trace.events():
        if category != "Trace":  # the recording itself, in a lane that is no thread
            begin = start + shift
            found.append(Span(name, category, begin, begin + duration, int(lane.process), int(lane.thread), ""))


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
        if span.category.startswith(("kernel", "gpu_")):
            label = f"GPU {span.process} stream {span.thread}"
        lane = Lane(span.process, span.thread, label)
        yield Event(span.name, span.category, span.start_ns, span.end_ns - span.start_ns, lane)
