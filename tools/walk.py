"""Walk through notebooks: run each at full length, and note how long the cells of each section ran.

``python -m tools.walk`` for all, or with names as in ``python -m tools.walk 00 04``. It updates ``docs/walked.json``,
from which ``python -m tools.teaching`` writes the times in ``notebooks/README.md``. What is noted is the running time
of code; reading, guessing and discussing are not in it.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from kit.machine.about import about_here
from kit.machine.load import load_average
from tools.executing import copied, executed
from tools.lab import ROOT

WALKED = ROOT / "docs" / "walked.json"


def sections_of(notebook: NotebookNode) -> dict[str, float]:
    """Section -> seconds that its cells ran, of an executed notebook; cells before the first one count to that."""
    headings = [heading(cell) for cell in notebook.cells]
    first = next((each for each in headings if each), "")
    found: dict[str, float] = defaultdict(float)
    current = first
    for cell, begins in zip(notebook.cells, headings, strict=True):
        current = begins or current
        times = cell.metadata.get("execution", {})
        if "shell.execute_reply" in times:
            begin, end = (
                datetime.fromisoformat(times[key].replace("Z", "+00:00"))
                for key in ("iopub.execute_input", "shell.execute_reply")
            )
            found[current] += (end - begin).total_seconds()
    return {each: round(found[each], 1) for each in dict.fromkeys(filter(None, headings))}


def heading(cell: NotebookNode) -> str:
    """The numbered heading of a section that a cell begins, as "1. This machine"; else nothing."""
    match = re.search(r"^## (\d+\. .+?)\s*$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
    return match.group(1) if match else ""


def walk(path: Path) -> dict[str, Any]:
    """Run a notebook; what was noted.

    Raises:
        BrokenCell: a cell failed.
    """
    load = load_average()
    notebook = executed(path)
    about = about_here()
    return {
        "date": about.date,
        "machine": f"{about.machine['cpu']}, {about.machine['cores']} cores",
        "load average before": round(load, 1),
        "seconds": sections_of(notebook),
    }


def main(names: list[str]) -> None:
    """Walk through the notebooks whose names begin with one of these; all, if there are none."""
    walked = json.loads(WALKED.read_text()) if WALKED.exists() else {}
    every = sorted((ROOT / "notebooks").glob("*.ipynb"))
    with copied([path for path in every if not names or path.name.startswith(tuple(names))]) as places:
        for path in places:
            walked[path.stem] = walk(path)
            WALKED.write_text(json.dumps(dict(sorted(walked.items())), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
