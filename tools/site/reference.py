"""The public names of the kit with their signatures and docstrings, as Markdown."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from kit.text import markdown_table
from tools.lab import ROOT

SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes|Examples?|Notes?):$")
ENTRY = re.compile(r"^    (?! )([*\w][\w.*, ]*): ?(.*)$")  # of a section: "name: text", with more lines indented


def modules() -> list[str]:
    """The packages with a list of public names, but those that hold one notebook's exercises."""
    found = []
    for path in sorted((ROOT / "kit").rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(ROOT).parts)
        if not name.startswith("kit.labs") and hasattr(importlib.import_module(name), "__all__"):
            found.append(name)
    return found


def module_page(name: str) -> str:
    """All public names of a module."""
    module = importlib.import_module(name)
    rows = [(f"[{public}](#{public})", in_short(getattr(module, public))) for public in module.__all__]
    parts = [f"# {name}", described(module), markdown_table(("name", "what it is"), "ll", rows)]
    for public in module.__all__:
        value = getattr(module, public)
        if getattr(value, "__module__", "").startswith("kit") and callable(value):
            parts += [f"## {public}", *entry(value, f"{name}.{public}")]
        else:
            parts += [f"## {public}", f"```python\n{name}.{public} = {_short(value)}\n```"]
    return "\n\n".join(parts)


def in_short(value: Any) -> str:
    """The first line of a docstring, for a cell of a table; what has none is a constant, or a type made of others."""
    if inspect.ismodule(value) or getattr(value, "__module__", "").startswith("kit"):
        return described(value).partition("\n")[0].replace("|", "&#124;")
    return f"a constant, {type(value).__name__}" if isinstance(value, float | int | dict | tuple) else "a type"


def index_page() -> str:
    """The modules, each with its first sentence and its names."""
    rows = []
    for name in modules():
        module = importlib.import_module(name)
        names = ", ".join(f"[`{public}`]({name}.md#{public})" for public in module.__all__)
        rows.append(f"## [{name}]({name}.md)\n\n{described(module).partition(chr(10) * 2)[0]}\n\n{names}")
    return "# API reference\n\nEvery public name, from its docstring.\n\n" + "\n\n".join(rows)


def entry(value: Any, name: str) -> Iterator[str]:
    """Signature and description of a function or class, and of the public methods and properties of a class."""
    yield f"```python\n{signature(value, name)}\n```"
    yield described(value)
    if inspect.isclass(value):
        for each, member in vars(value).items():
            if each.startswith("_") or not member.__doc__:
                continue
            if isinstance(member, property):
                yield f"### {value.__name__}.{each}"
            elif inspect.isfunction(member) or isinstance(member, classmethod | staticmethod):
                call = signature(member if inspect.isfunction(member) else getattr(value, each), each)
                yield f"### {value.__name__}.{each}\n\n```python\n{call}\n```"
            else:
                continue
            yield described(member)


class _AsWritten(str):
    """An annotation as it stands in the source, without quotes around it."""

    __repr__ = str.__str__


def signature(value: Any, name: str) -> str:
    """``name(parameters) -> result`` without ``self``; a line for each parameter where one line would be long."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):  # of an error, which takes what Exception takes
        return name

    def plain(annotation: Any) -> Any:
        return _AsWritten(annotation) if isinstance(annotation, str) else annotation

    given = [each for each in found.parameters.values() if each.name != "self"]
    parameters = [each.replace(annotation=plain(each.annotation)) for each in given]
    found = found.replace(parameters=parameters, return_annotation=plain(found.return_annotation))
    line = f"{name}{found}"
    if len(line) <= 88 or not parameters:
        return line
    head, _, result = line.rpartition(" -> ") if found.return_annotation is not found.empty else (line, "", "")
    marks = _with_stars(parameters)
    return f"{name}(\n" + "".join(f"    {mark},\n" for mark in marks) + f"){' -> ' + result if head and result else ''}"


def _with_stars(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for each in parameters:
        starred |= each.kind is each.VAR_POSITIONAL
        if each.kind is each.KEYWORD_ONLY and not starred:
            yield "*"
            starred = True
        yield str(each)


def described(value: Any) -> str:
    """A docstring as Markdown: its sections become lists, and its examples code."""
    lines, section = list[str](), ""
    text = inspect.getdoc(value) or ""
    for line in text.splitlines():
        if found := SECTION.match(line):
            section = found[1]
            lines += ["", f"**{section}**", ""]
        elif section.startswith("Example"):
            lines.append(line.removeprefix("    "))
        elif section and (found := ENTRY.match(line)):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1].startswith(("- ", "  ")) else line.strip())
        else:
            section = section if not line else ""
            lines.append(line)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", "\n".join(lines)).replace("``", "`")
    text = re.sub(r"`([^`<>]+?)\s+<(https?://[^`>]+)>`_", r"[\1](\2)", text)
    return _fenced(re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", text))


def _fenced(text: str) -> str:
    """Each paragraph that begins with ``>>>`` as a block of code."""
    blocks = re.split(r"\n\n+", text)
    is_code = [block.lstrip("\n").startswith(">>>") for block in blocks]
    shown = (
        f"```python\n{block.replace('&lt;', '<').strip()}\n```" if code else block
        for block, code in zip(blocks, is_code, strict=True)
    )
    return "\n\n".join(shown)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def pages() -> dict[str, str]:
    """Name -> Markdown of each page, the index first."""
    return {"index": index_page(), **{name: module_page(name) for name in modules()}}
