"""Converts the numbers of trace files to whole nanoseconds and ids, exactly."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, DecimalException
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from kit.trace.columns import Int64
from kit.trace.reading import Args, Row

_EXACT = 2.0**43  # microseconds up to which a double keeps nanoseconds: a hundred days
LAST = 2**62  # nanoseconds; the year 2116
NO_TIME = np.iinfo(np.int64).min


def nanoseconds(rows: list[Row], column: str) -> Int64 | None:
    """Nanoseconds from microseconds, given as numbers or strings; None if a double may have rounded a value."""
    try:
        given = np.fromiter(map(attrgetter(column), rows), np.float64, len(rows))
    except (OverflowError, TypeError, ValueError):
        return None
    absent = np.isnan(given)  # from None: JSON has no NaN
    given[absent] = 0
    if not np.all(np.abs(given) < _EXACT):
        return None
    if any(isinstance(getattr(rows[i], column), bool) for i in np.flatnonzero((given == 0) | (given == 1)).tolist()):
        return None
    whole = np.trunc(given)
    ns = whole.astype(np.int64) * 1000 + np.rint((given - whole) * 1000).astype(np.int64)
    ns[absent] = NO_TIME
    return ns


def decimals(values: list[Any]) -> Int64:
    """Nanoseconds from decimals or JSON text; NO_TIME for anything that is not a possible number."""
    return np.array([_whole_ns(value) for value in values], np.int64)


def _whole_ns(value: Any) -> int:
    try:
        if isinstance(value, msgspec.Raw):
            value = Decimal(bytes(value).strip(b'"').decode())
        if isinstance(value, Decimal) and value.is_finite() and abs(value) * 1000 < LAST:
            return round(value * 1000)
    except (ValueError, DecimalException):
        pass
    return NO_TIME


def number(value: Any) -> float:
    """A number, also one in a string; NaN for anything else."""
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else np.nan
    except (ValueError, OverflowError):
        return np.nan


def plain(value: Any) -> int | str:
    """A pid, a tid or the id of a flow: a whole number unchanged, 0 if missing, anything else as text."""
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) or (type(value) is int and -(2**63) <= value < 2**64):
        return value
    return str(value)


def text(value: Any) -> str:
    """A name or a category as text; empty if missing."""
    return "" if value is None else str(value)


def ids_of(rows: list[Row], column: Callable[[Row], Any]) -> Int64:
    """Ids that are whole numbers, unchanged; -1 for anything else."""
    try:
        return np.fromiter(map(column, rows), np.int64, len(rows))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return np.array([_id(column(row)) if isinstance(row.args, Args) else -1 for row in rows], np.int64)


def _id(value: Any) -> int:
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 20 else -1
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return -1
    return (value + 2**63) % 2**64 - 2**63  # unsigned 64-bit ids stay different from each other
