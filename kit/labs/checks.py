"""What an exercise check answers: not attempted yet, a hint, or passed. It never raises."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """The state of an exercise."""

    state: Literal["not attempted yet", "hint", "passed"]
    message: str = ""

    def __repr__(self) -> str:
        return f"{self.state}: {self.message}" if self.message else self.state

    def _repr_html_(self) -> str:
        sign = {"not attempted yet": "&#9711;", "hint": "&#10140;", "passed": "&#10004;"}[self.state]
        return f"<p>{sign} <b>{self.state}</b> {html.escape(self.message)}</p>"


def is_stub(function: Callable[..., Any]) -> bool:
    """Whether a function still has the empty body of an exercise."""

    def stub() -> None: ...

    code = getattr(function, "__code__", None)
    return code is not None and code.co_code == stub.__code__.co_code


def check(judge: Callable[[Any], str | Check | None]) -> Callable[[Any], Check]:
    """Make a check of a function that looks at an answer and returns a hint, or None when it is right.

    An answer of None, ``...`` or a function that is still a stub has not been attempted; the judge may say so too.
    An exception that the answer raises becomes the hint.
    """

    @wraps(judge)
    def checked(answer: Any) -> Check:
        if answer is None or answer is ... or is_stub(answer):
            return Check("not attempted yet")
        try:
            verdict = judge(answer)
        except Exception as error:
            return Check("hint", f"your answer raised {type(error).__name__}: {error}")
        if isinstance(verdict, Check):
            return verdict
        return Check("hint", verdict) if verdict else Check("passed")

    return checked


def first_wrong(answer: Callable[..., Any], cases: Sequence[tuple[tuple[Any, ...], float, str]]) -> str | None:
    """The hint of the first case ``(arguments, number wanted, hint)`` in which an answer gives another number."""
    for given, want, hint in cases:
        shown = f"for {', '.join(map(str, given))}"
        try:
            found = answer(*given)
        except ZeroDivisionError:
            return f"{shown} it divides by zero: {hint}"
        if found is None:
            return f"{shown} it gives None: is there a return?"
        if not isinstance(found, int | float):
            return f"{shown} it gives {found!r}, a {type(found).__name__}, and not a number."
        if not math.isclose(found, want, rel_tol=1e-6):
            return hint
    return None
