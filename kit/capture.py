"""What happened in this process, as events on one clock: the kit's own spans, and torch.profiler's operators."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from kit.spans import ClockAnchor, Span
from kit.trace import Event, Lane, load_trace


@dataclass
class Capture:
    """The operators of a block, available once it has ended."""

    events: list[Event] = field(default_factory=list)


@contextmanager
def operators() -> Iterator[Capture]:
    """Record the operators that any thread of this process runs in this block, and the kernels of its GPU.

    torch.profiler alone is thread-local: of a pool's threads it would see nothing, hence ``profile_all_threads``. It
    writes wall-clock time; the anchor brings its events onto the clock of the spans, to within tens of microseconds.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    capture = Capture()
    with profile(activities=activities, experimental_config=_ExperimentalConfig(profile_all_threads=True)) as profiler:
        yield capture
    anchor = ClockAnchor.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = load_trace(path)
    shift = anchor.monotonic_ns - anchor.wall_ns
    capture.events = [event._replace(start_ns=event.start_ns + shift) for event in trace.events()]


def span_events(spans: Iterable[Span]) -> Iterator[Event]:
    """Spans as events. The main thread is the caller; other threads keep the names that their executor gave them."""
    main = threading.main_thread().name
    for span in spans:
        label = "caller" if span.thread_name == main else span.thread_name.replace("_", " ")
        lane = Lane(span.process, span.thread, label)
        yield Event(span.name, span.category, span.start_ns, span.end_ns - span.start_ns, lane)
