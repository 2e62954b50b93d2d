"""One call of a runner as a trace: the kit's spans from every thread, and the operators below them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from kit import capture, spans
from kit.capture import span_events
from kit.equality import as_args
from kit.trace import Trace


def record_call(
    call: Callable[..., Any], inputs: Any, *, intra_op_threads: int, warm: bool = True, operators: bool = True
) -> Trace:
    """Record one call in inference mode: spans, and what torch.profiler saw in all threads and worker processes.

    Profiling costs a few microseconds an operator, and the better part of a second where a process does it for the
    first time, so such a call is longer than a measured one: read shares and order from it, and times from a
    comparison, or from spans without operators.

    Args:
        call: a runner, or a model.
        inputs: a tensor, or a tuple of arguments.
        intra_op_threads: of the calling thread, for the length of the call.
        warm: make two calls before, one of them recorded (a process's first profile is slow). Otherwise the call is
            recorded as it comes, start-up included.
        operators: run torch.profiler; without, the spans have their true lengths.
    """
    args = as_args(inputs)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(intra_op_threads)
        with torch.inference_mode():
            if warm:
                call(*args)
                _record(call, args, operators)
            return Trace.build(span_events(_record(call, args, operators)))
    finally:
        torch.set_num_threads(threads_before)


def _record(call: Callable[..., Any], args: tuple[Any, ...], operators: bool) -> list[spans.Span]:
    profiler: AbstractContextManager[list[spans.Span]] = capture.operators() if operators else nullcontext([])
    with spans.collect(operators=operators) as log, profiler as found, spans.span("call", "call"):
        call(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    own = {(span.process, span.thread) for span in log.spans}
    on_gpu = ("kernel", "gpu_")
    return log.spans + [s for s in found if (s.process, s.thread) in own or s.category.startswith(on_gpu)]
