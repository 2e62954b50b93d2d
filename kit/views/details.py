"""The arguments of an event for the details below a timeline: short, in order, and text only. No Jupyter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from kit.views.points import value_text

_NAME, _TEXT, _LINES, _ARGUMENTS = (
    80,
    1_000,
    200,
    60,
)  # characters, characters, lines of a stack, arguments: shown at most
_FIRST = ("Input Dims", "Input type", "Input Strides", "Concrete Inputs")
_BYTES = re.compile(
    r"bytes$|^(in|out) msg nelems bytes$|^total (allocated|reserved)$|^(shared )?memory$", re.IGNORECASE
)
_STACK = re.compile(r"stack|backtrace", re.IGNORECASE)


def described(args: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of ``[name, text, lines]``; ``lines`` is the call stack if the argument is one, and then the text counts it.

    Shapes come first. A number of bytes is told in a larger unit as well. What is long is cut, and says so.
    """
    order = sorted(args, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    rows = [_row(name, args[name]) for name in order[:_ARGUMENTS]]
    more = len(order) - len(rows)
    return [*rows, *([["…", f"{more:,} more", []]] if more else [])]


def _row(name: str, value: Any) -> list[Any]:
    if _STACK.search(name):
        lines = value if isinstance(value, list) else re.split(r"[;\n]", value) if isinstance(value, str) else []
        lines = [_cut(str(line).strip()) for line in lines if str(line).strip()]
        if len(lines) > 1:
            shown = lines[:_LINES] + ([f"… {len(lines) - _LINES:,} more"] if len(lines) > _LINES else [])
            return [_cut(name, _NAME), f"{len(lines):,} lines", shown]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _BYTES.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value:,}" + (f" ({value_text(value, True)})" if abs(value) >= 1024 else "")
    return [_cut(name, _NAME), _cut(text), []]


def _cut(text: str, longest: int = _TEXT) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
