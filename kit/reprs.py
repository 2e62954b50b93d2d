"""One short line for each object: what a notebook's stored output, an error or a debugger shows of it."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

LONGEST = 120  # characters
T = TypeVar("T")


def one_line(cls: type[T]) -> type[T]:
    """A class decorator: ``__repr__`` gives type and fields in a line, arrays by their shapes, collections by lengths.

    Without addresses, and without the fields that a dataclass marks with ``repr=False``, as those that are measured.
    """
    cls.__repr__ = _line  # type: ignore[method-assign]
    return cls


def _line(self: Any) -> str:
    names = [each.name for each in fields(self) if each.repr] if is_dataclass(self) else getattr(self, "_fields", None)
    names = [name for name in vars(self) if not name.startswith("_")] if names is None else names
    text = f"{type(self).__name__}({', '.join(f'{name}={_brief(getattr(self, name))}' for name in names)})"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]}…)"


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:39]}…")
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "shape"):
        return f"{type(value).__name__}{tuple(value.shape)}"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    named = hasattr(value, "_fields")
    if isinstance(value, Sized) and not named and len(value) > 4:
        return f"{len(value)} items"
    text = repr(value)
    if len(text) <= 60 and "\n" not in text and " at 0x" not in text:
        return text
    return f"{len(value)} items" if isinstance(value, list | tuple | dict) and not named else type(value).__name__
