"""A trace as a pandas DataFrame, for questions that the kit has no function for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kit.errors import UnavailableError
from kit.trace.columns import Int32, Interner, Trace


def to_pandas(trace: Trace) -> Any:
    """See :meth:`Trace.to_pandas`."""
    try:
        import pandas
    except ImportError as error:
        raise UnavailableError(
            "to_pandas needs pandas, which is not installed here: install the extra lab, "
            "pip install 'branch-lab[lab]', or pip install pandas."
        ) from error

    def categorical(values: Sequence[Any], number: Int32) -> Any:
        different = Interner()
        codes = different.of(values)
        return pandas.Categorical.from_codes(codes[number], [*different])

    process, thread, label, group = zip(*trace.lanes, strict=True) if trace.lanes else ((), (), (), ())
    return pandas.DataFrame(
        {
            "start_ns": trace.start_ns,
            "duration_ns": trace.duration_ns,
            "name": categorical(trace.names, trace.name),
            "category": categorical(trace.categories, trace.category),
            "process": categorical(process, trace.lane),
            "thread": categorical(thread, trace.lane),
            "lane": categorical(label, trace.lane),
            "group": categorical(group, trace.lane),
            "correlation": trace.ids("correlation"),
            "external": trace.ids("external"),
        }
    )
