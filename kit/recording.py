"""One call of a runner as a trace: the kit's spans from every thread, and the operators below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kit import spans
from kit.capture import operators, span_events
from kit.equality import as_args
from kit.trace import Trace


def record_call(call: Callable[..., Any], inputs: Any, *, intra_op_threads: int) -> Trace:
    """Record one warm call in inference mode: spans, and what torch.profiler saw in all threads of this process.

    Profiling costs a few microseconds an operator, so a recorded call is longer than a measured one: read shares and
    order from it, and times from a comparison. Two calls go before it, because a process's first profile is slow.
    """
    args = as_args(inputs)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(intra_op_threads)
        with torch.inference_mode():
            call(*args)
            with operators():
                call(*args)
            with spans.collect() as log, operators() as capture, spans.span("call", "call"):
                call(*args)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
    finally:
        torch.set_num_threads(threads_before)
    rows = list(span_events(log.spans))
    lanes = {(row.lane.process, row.lane.thread): row.lane for row in rows}
    for event in capture.events:
        known = lanes.get((event.lane.process, event.lane.thread))
        if known:
            rows.append(event._replace(lane=known))
        elif event.category.startswith(("kernel", "gpu_")):
            stream = event.lane._replace(label=f"GPU {event.lane.process} stream {event.lane.thread}")
            rows.append(event._replace(lane=stream))
    return Trace.build(rows)
