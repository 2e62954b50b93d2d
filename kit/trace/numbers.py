"""From what trace files hold as numbers to whole nanoseconds and ids, exactly."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, DecimalException
from operator import attrgetter
from typing import Any

import numpy as np

from kit.trace.columns import Int64
from kit.trace.reading import Row

_EXACT = 2.0**43  # microseconds up to which a double keeps nanoseconds: a hundred days
LAST = 2**62  # nanoseconds; the year 2116
NO_TIME = np.iinfo(np.int64).min


def nanoseconds(rows: list[Row], column: str) -> Int64 | None:
    """Microseconds as nanoseconds; None where a double may have rounded one."""
    try:
        given = np.fromiter(map(attrgetter(column), rows), np.float64, len(rows))
    except OverflowError:
        return None
    absent = np.isnan(given)  # from None: JSON has no NaN
    given[absent] = 0
    if not np.all(np.abs(given) < _EXACT):
        return None
    whole = np.trunc(given)
    ns = whole.astype(np.int64) * 1000 + np.rint((given - whole) * 1000).astype(np.int64)
    ns[absent] = NO_TIME
    return ns


def decimals(values: list[Decimal | None]) -> Int64:
    return np.array([NO_TIME if value is None else _whole_ns(value) for value in values], np.int64)


def _whole_ns(value: Decimal) -> int:
    try:
        if value.is_finite() and abs(value) * 1000 < LAST:
            return round(value * 1000)
    except DecimalException:
        pass
    raise OverflowError


def ids_of(rows: list[Row], column: Callable[[Row], Any]) -> Int64:
    """Whole numbers as they are; what is no id becomes -1."""
    try:
        return np.fromiter(map(column, rows), np.int64, len(rows))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return np.array([-1 if row.args is None else _id(column(row)) for row in rows], np.int64)


def _id(value: Any) -> int:
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 20 else -1
    if isinstance(value, bool) or not isinstance(value, int):
        return -1
    return (value + 2**63) % 2**64 - 2**63  # unsigned 64-bit ids stay different from each other
