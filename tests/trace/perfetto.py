"""What Perfetto's importer makes of a Chrome trace file, by the rules in its sources.

Its Python package has no offline binary of the trace processor, so these rules stand in for it. They were read, not
copied, from `github.com/google/perfetto <https://github.com/google/perfetto>`_, src/trace_processor/importers:

- json/json_trace_tokenizer.cc: ts and dur are numbers; a pid or tid is an unsigned number of 32 bits, else 0; a tid of
  0 becomes the pid; text as a pid or tid is "brittle as it is not a part of the actual spec"; a control character
  before the events is an error.
- json/json_trace_parser.cc: an X needs dur, an i with scope t a tid, async events an id, a C numbers, flows an id that
  is a number or hexadecimal text.
- common/slice_tracker.cc: an event that starts inside of another one of its thread and ends behind it is dropped, and
  so is one that is too deep. An instant at the end of an event is not in it.
- common/flow_tracker.cc: the end of a flow needs an open event on its thread, and only one start of an id counts.
"""

import gzip
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEEPEST = 255
Slice = tuple[str, int, int]  # name, start and duration in nanoseconds


@dataclass
class Imported:
    """What Perfetto shows, and what it drops, with the reason."""

    slices: list[Slice] = field(default_factory=list)
    instants: int = 0
    counters: list[float] = field(default_factory=list)
    flows: Counter[tuple[Slice, Slice]] = field(default_factory=Counter)
    asynchronous: int = 0
    dropped: list[str] = field(default_factory=list)


def imported(path: Path) -> Imported:
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    found, stacks = Imported(), dict[tuple[int, int], list[Slice]]()
    head = data[: data.find(b'"traceEvents"')]
    if any((byte < 32 and byte not in b"\n\r\t ") or byte == 127 for byte in head):
        found.dropped.append("the file: a control character before its events")
        return found
    rows = [row for row in json.loads(data)["traceEvents"] if row["ph"] != "M" or _named(row, found)]
    started: dict[tuple[int, Any, Any], Slice] = {}
    for row in sorted(rows, key=lambda row: 0 if row["ph"] == "M" else _ns(row["ts"])):
        where = _thread(row, found)
        stack, time, phase = stacks.setdefault(where, []), _ns(row.get("ts", 0)), row["ph"]
        if phase == "X" or (phase == "i" and row.get("s", "t") == "t"):
            one = (row.get("name", ""), time, _ns(row["dur"]) if phase == "X" else 0)
            if why := _push(stack, one):
                found.dropped.append(f"{one}: {why}")
            elif phase == "X":
                found.slices.append(one)
            else:
                found.instants += 1
        elif phase == "i":
            found.instants += 1
        elif phase == "C":
            values = row["args"].values()
            good = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            found.counters += good
            found.dropped += ["a counter without a number"] * (len(values) - len(good))
        elif phase in "stf":
            _flow(row, stack, started, found)
        elif phase in "bne":
            found.asynchronous += "id" in row or "id2" in row
            found.dropped += ["an async event without an id"] * ("id" not in row and "id2" not in row)
    return found


def _ns(us: Any) -> int:
    assert isinstance(us, int | float), f"{us!r} is no time"
    return round(us * 1000)


def _named(row: dict[str, Any], found: Imported) -> bool:
    if row["name"] in ("thread_name", "process_name") and not row["args"]["name"]:
        found.dropped.append("an empty name")
    return True


def _thread(row: dict[str, Any], found: Imported) -> tuple[int, int]:
    pid, tid = (row.get(key, 0) for key in ("pid", "tid"))
    for key in (pid, tid):
        if type(key) is not int or not 0 <= key < 2**32:
            found.dropped.append(f"the pid or tid {key!r}")
    pid, tid = (key if type(key) is int and 0 <= key < 2**32 else 0 for key in (pid, tid))
    return pid, tid or pid


def _push(stack: list[Slice], one: Slice) -> str:
    """Put an event on the stack of its thread; why it is dropped, if it is."""
    _, start, duration = one
    for around in reversed(stack.copy()):
        end = around[1] + around[2]
        if end < start or (end == start and not (around[2] == 0 and duration == 0)):
            stack.pop()
        elif start < end < start + duration:
            return f"it overlaps {around}"
    if len(stack) >= DEEPEST:
        return "it is too deep"
    stack.append(one)
    return ""


def _flow(row: dict[str, Any], stack: list[Slice], started: dict[tuple[int, Any, Any], Slice], found: Imported) -> None:
    given = row.get("id")
    try:
        number = int(given, 16) if isinstance(given, str) else given
        assert type(number) is int
        assert (0 if isinstance(given, str) else -(2**63)) <= number < (2**64 if isinstance(given, str) else 2**63)
    except (ValueError, AssertionError):
        found.dropped.append(f"a flow with the id {given!r}")
        return
    key = (number, row.get("cat"), row.get("name"))
    if not stack:
        found.dropped.append(f"an end of flow {key} outside of all events")
    elif row["ph"] == "s" and key in started:
        found.dropped.append(f"a second start of flow {key}")
    elif row["ph"] == "s":
        started[key] = stack[-1]
    elif key not in started:
        found.dropped.append(f"an end of flow {key} without a start")
    else:
        found.flows[started[key], stack[-1]] += 1
        started[key] = stack[-1] if row["ph"] == "t" else started[key]
