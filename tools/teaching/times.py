"""The table of times in notebooks/README.md: the plan of each notebook's card, and how long its code ran."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from tools.lab import ROOT
from tools.walk import WALKED

README = ROOT / "notebooks" / "README.md"
BEGIN, END = "<!-- times: made by python -m tools.teaching -->", "<!-- times: end -->"
WAIT_S = 20  # a section whose code runs longer is named: something to talk about meanwhile


def renewed(readme: str) -> str:
    """The README with the table made anew between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """The rows of all notebooks, and below them when and where their code ran."""
    walked = json.loads(WALKED.read_text(encoding="utf-8"))
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    rows = [
        "| notebook | minutes, as planned | its code ran | of that, sections of 20 s or more |",
        "|---|---:|---:|---|",
    ]
    rows += [_row(path, walked.get(path.stem)) for path in paths]
    return "\n".join([*rows, "", *_origins({path.stem: walked[path.stem] for path in paths if path.stem in walked})])


def _row(path: Path, walk: Mapping[str, Any] | None) -> str:
    minutes = card(path, "Minutes").partition(":")[0]
    if walk is None:
        return f"| {path.stem} | {minutes} | not walked through yet | |"
    long = [f"{name} {seconds:.0f} s" for name, seconds in walk["seconds"].items() if seconds >= WAIT_S]
    return f"| {path.stem} | {minutes} | {said(sum(walk['seconds'].values()))} | {'; '.join(long)} |"


def said(seconds: float) -> str:
    """``45 s`` or ``3 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _origins(walked: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    machines = dict.fromkeys(each["machine"] for each in walked.values())
    for machine in machines:
        here = [each for each in walked.values() if each["machine"] == machine]
        dates, loads = sorted(each["date"][:10] for each in here), sorted(each["load average before"] for each in here)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        yield (
            f"Walked through at full length on {when} on {machine}. Before each notebook, the machine's load average "
            f"was between {loads[0]:g} and {loads[-1]:g}: on a quiet machine the code takes less."
        )


def card(path: Path, field: str) -> str:
    """A field of a notebook's card."""
    cell = nbformat.read(path, as_version=4).cells[0]
    match = re.search(rf"^\*\*{field}\*\* (.+)$", cell.source, re.MULTILINE)
    return match.group(1) if match else ""
