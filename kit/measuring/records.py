"""A tree of records as a JSON file, and back: dataclasses, named tuples, arrays, mappings and plain values.

A record becomes an object with the names of its fields. An array becomes a list of numbers. A mapping whose keys are
text becomes an object; any other becomes a list of ``[key, value]`` pairs. Bytes become base64. A float that JSON
cannot write becomes ``"nan"``, ``"inf"`` or ``"-inf"``. Records of one chosen type may be shared by several others:
they are written once, in a separate list, and each reference holds the position in that list. So references to one
object are references to one object again.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import math
import os
import secrets
import types
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from kit.errors import ResultError
from kit.paths import check_writable
from kit.reprs import one_line

T = TypeVar("T")
WIDTH = 120  # characters of a line that holds more than numbers


@one_line
class Format(NamedTuple):
    """The first fields of a file of records: its format, its version, and its shared records."""

    name: str  # its field "format"
    version: int  # its field "version": the newest that this code reads, and the one that it writes
    shared: type  # records of this type are written once; a dataclass that holds no others of its type
    shared_name: str  # the field with the list of those


def save_record(record: Any, path: str | Path, form: Format) -> None:
    """Write a dataclass as JSON, gzipped if the name ends in ``.gz``.

    An existing file is replaced only when the new one is complete, so a killed process leaves the old file.

    Raises:
        KitError: the file cannot be written.
    """
    path = Path(path)
    check_writable(path)
    writer = _Writer(form.shared)
    plain = {"format": form.name, "version": form.version, **writer.named(record)}
    text = _layout(plain | {form.shared_name: writer.records}).encode() + b"\n"
    target = Path(os.path.realpath(path))  # through a link, to the file that it leads to
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(gzip.compress(text, 6, mtime=0) if path.suffix == ".gz" else text)
        draft.replace(target)
    except OSError as error:
        raise ResultError(
            f"cannot write {path}: {error.strerror or error}. Choose another file name or folder."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def load_record(kind: type[T], path: str | Path, form: Format) -> T:
    """Read what :func:`save_record` wrote.

    Raises:
        ResultError: the file is missing, damaged, of another format, or of a newer version.
    """
    plain = _parsed(Path(path), form)
    version = plain.get("version")
    if isinstance(version, int) and version > form.version:
        raise ResultError(
            f"cannot read {path}: it is version {version} of the format {form.name!r}, and this kit reads versions up "
            f"to {form.version}. Update the kit to the version that wrote it, or a later one."
        )
    try:
        if not isinstance(version, int) or version < 1:
            raise _Damage(f"its version is {version!r}")
        reader = _Reader(form.shared)
        reader.records = [
            reader.record(form.shared, each, f"{form.shared_name}[{i}]")
            for i, each in enumerate(_list(plain.get(form.shared_name), form.shared_name))
        ]
        found: T = reader.record(kind, plain, "the file")
    except _Damage as error:
        raise ResultError(f"cannot read {path}: it is damaged: {error}. Save the result again.") from error
    return found


class _Damage(Exception):
    """What is damaged in a file, and in which field."""


def _parsed(path: Path, form: Format) -> dict[str, Any]:
    try:
        text = path.read_bytes()
        text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ResultError(f"cannot read {path}: its gzip data is truncated or damaged ({error}).") from error
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}. Give the path of a saved file.") from error
    want = f"a {form.name}"
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        if f'"format": "{form.name}"'.encode() in text[:200]:
            raise ResultError(f"cannot read {path}: it is {want}, but truncated or damaged ({error}).") from error
        raise ResultError(f"{path} is not {want}: it is {'not JSON' if text.strip() else 'empty'}.") from error
    if not isinstance(plain, dict):
        raise ResultError(f"{path} is not {want}: it is JSON, but a {type(plain).__name__} instead of an object.")
    if plain.get("format") != form.name:
        why = f"its field 'format' is {plain.get('format')!r}"
        if "traceEvents" in plain:
            why = "it is a trace, which kit.load_trace reads"
        elif "approaches" in plain:
            why = "it is a summary without samples, as compare --json writes; compare --save writes all"
        raise ResultError(f"{path} is not {want}: {why}.")
    return plain


class _Writer:
    """Turns records into plain values, and collects the shared records."""

    def __init__(self, shared: type) -> None:
        self.shared, self.records = shared, list[dict[str, Any]]()
        self._positions: dict[int, int] = {}  # id of a shared record -> its position

    def named(self, record: Any) -> dict[str, Any]:
        names = record._fields if isinstance(record, tuple) else [each.name for each in fields(record)]  # type: ignore[attr-defined]
        return {name: self.plain(getattr(record, name)) for name in names}

    def plain(self, value: Any) -> Any:
        if isinstance(value, self.shared):
            if id(value) not in self._positions:
                self._positions[id(value)] = len(self.records)
                self.records.append(self.named(value))
            return self._positions[id(value)]
        if is_dataclass(value) or hasattr(value, "_fields"):
            return self.named(value)
        if isinstance(value, np.ndarray | np.generic):
            return self.plain(value.tolist())
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            if all(isinstance(key, str) for key in value):
                return {key: self.plain(item) for key, item in value.items()}
            return [[self.plain(key), self.plain(item)] for key, item in value.items()]
        return [self.plain(each) for each in value] if isinstance(value, list | tuple) else value


class _Reader:
    """Turns plain values into records, by the types of their fields."""

    def __init__(self, shared: type) -> None:
        self.shared, self.records = shared, list[Any]()

    def record(self, kind: Any, plain: Any, where: str) -> Any:
        if not isinstance(plain, dict):
            raise _Damage(f"{where} is not an object")
        if is_dataclass(kind):
            optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
        else:
            optional = set(kind._field_defaults)
        hints = {name: hint for name, hint in _hints(kind).items() if name in plain or name not in optional}
        if missing := [name for name in hints if name not in plain]:
            raise _Damage(f"{where} lacks {', '.join(missing)}")
        return kind(**{name: self.value(hint, plain[name], f"{where}.{name}") for name, hint in hints.items()})

    def value(self, kind: Any, plain: Any, where: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return plain
        if origin in (Union, types.UnionType):
            return self._either(arguments, plain, where)
        if kind is self.shared:
            if type(plain) is not int or not 0 <= plain < len(self.records):
                raise _Damage(f"{where} refers to record {plain!r}, but there are {len(self.records)} records")
            return self.records[plain]
        if origin is np.ndarray:
            return _array(get_args(arguments[1])[0], plain, where)
        if origin is tuple:
            items = _list(plain, where)
            kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else arguments
            if len(items) != len(kinds):
                raise _Damage(f"{where} has {len(items)} items instead of {len(kinds)}")
            return tuple(
                self.value(k, each, f"{where}[{i}]") for i, (k, each) in enumerate(zip(kinds, items, strict=True))
            )
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(arguments, plain, where)
        if is_dataclass(kind) or hasattr(kind, "_fields"):
            return self.record(kind, plain, where)
        return _scalar(kind, plain, where)

    def _either(self, kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
        if plain is None and type(None) in kinds:
            return None
        exact = [kind for kind in kinds if kind is type(plain)]  # of int | float | str the one that it is
        others = exact or [kind for kind in kinds if kind is not type(None)]
        return self.value(others[0], plain, where)

    def _mapping(self, kinds: tuple[Any, ...], plain: Any, where: str) -> dict[Any, Any]:
        pairs = [*plain.items()] if isinstance(plain, dict) else [_list(each, where) for each in _list(plain, where)]
        if any(len(pair) != 2 for pair in pairs):
            raise _Damage(f"{where} has entries that are not pairs")
        return {
            self.value(kinds[0], k, f"{where} (a key)"): self.value(kinds[1], v, f"{where}[{k!r}]") for k, v in pairs
        }


def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)] if is_dataclass(kind) else kind._fields
    return {name: hints[name] for name in names}


def _list(plain: Any, where: str) -> list[Any]:
    if not isinstance(plain, list):
        raise _Damage(f"{where} is not a list")
    return plain


def _array(kind: Any, plain: Any, where: str) -> np.ndarray[Any, Any]:
    allowed = {int} if issubclass(kind, np.integer) else {int, float, str}
    try:
        if not {*map(type, _list(plain, where))} <= allowed:
            raise ValueError("another kind of number was expected")
        return np.array([float(each) for each in plain] if str in allowed else plain, kind)
    except (ValueError, OverflowError) as error:
        raise _Damage(f"{where} is not a list of {kind.__name__}: {error}") from error


def _scalar(kind: Any, plain: Any, where: str) -> Any:
    if kind is float and plain in ("nan", "inf", "-inf"):
        return float(plain)
    if kind is bytes and isinstance(plain, str):
        try:
            return base64.b64decode(plain, validate=True)
        except (ValueError, binascii.Error) as error:
            raise _Damage(f"{where} is no base64: {error}") from error
    if type(plain) not in ((int, float) if kind is float else (kind,)):
        raise _Damage(f"{where} is {str(plain)[:40]!r} instead of {kind.__name__}")
    return plain


def _layout(plain: Any, indent: str = "") -> str:
    """JSON that is easy to read: lists of numbers, and values that fit, are on one line."""
    text = json.dumps(plain, allow_nan=False)
    inner = indent + " "
    if isinstance(plain, dict) and len(text) > WIDTH:
        lines = [f"{inner}{json.dumps(name)}: {_layout(value, inner)}" for name, value in plain.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(plain, list) and len(text) > WIDTH and any(isinstance(each, list | dict) for each in plain):
        return "[\n" + ",\n".join(inner + _layout(each, inner) for each in plain) + f"\n{indent}]"
    return text
