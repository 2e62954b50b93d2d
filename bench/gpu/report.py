"""What a run has found: ``summary.json``, a table of measured times, and rows and commands for ``data/README.md``."""

from __future__ import annotations

import gzip
import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.steps import Ended, Step

Json = dict[str, Any]
NOT_REACHED = Ended("skipped", 0.0, "the run was stopped before it")


def write(folder: Path, about: Json, steps: Sequence[Step], known: Mapping[str, Ended]) -> Json:
    """Write the three files; returns the summary. A step of which nothing is known was not reached."""
    ended = {step.name: known.get(step.name, NOT_REACHED) for step in steps}
    done = [step for step in steps if ended[step.name].status == "done"]
    comparisons = [json.loads(step.files[0].read_text()) for step in done if step.name.startswith("compare-")]
    traces = [traced(step.files[0]) for step in done if step.name.startswith("trace-")]
    summary = {
        "about": about,
        "tests": next((tested(step.files[0]) for step in done if step.name == "tests"), None),
        "comparisons": comparisons,
        "traces": traces,
        "steps": {name: entry._asdict() for name, entry in ended.items()},
        "failed": [name for name, entry in ended.items() if entry.status == "failed"],
        "skipped": [name for name, entry in ended.items() if entry.status in ("skipped", "running")],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "measured.md").write_text(measured(about, comparisons))
    (folder / "README.md").write_text(rows(about, traces))
    return summary


def tested(path: Path) -> Json:
    """How many tests there were, from pytest's JUnit file."""
    suites = [*ElementTree.parse(path).getroot().iter("testsuite")]
    return {
        kind: sum(int(suite.get(kind, 0)) for suite in suites) for kind in ("tests", "failures", "errors", "skipped")
    }


def traced(path: Path) -> Json:
    """What a saved trace is of."""
    with gzip.open(path) as file:
        whole = json.load(file)
    about = whole["otherData"]
    events = sum(row["ph"] == "X" for row in whole["traceEvents"])
    told = {key: about[key] for key in ("workload", "batch", "command", "date")}
    return {"file": path.name, "bytes": path.stat().st_size, "events": events, **told}


def where(about: Json, dates: Iterable[str] = ()) -> str:
    """The machine and the versions, as a row of the README has them; the date is that of the run, or these."""
    versions, machine = about["versions"], about["machine"]
    cores = f"{machine['cores']} cores, {machine['cpu']}"
    if "gpu" in about:
        on = f"one {about['gpu']['name']} ({cores}), driver {machine['driver']}, CUDA {machine['cuda']}"
    else:
        on = f"no GPU ({cores}), A DRY RUN THAT IS NOT TO BE KEPT"
    days = " and ".join(sorted({date[:10] for date in dates} or {about["date"][:10]}))
    return f"recorded on {days} on {on}, PyTorch {versions['torch']}, Python {versions['python']}"


def rows(about: Json, traces: Sequence[Json]) -> str:
    """For each workload a row of the table of files, and below the table the commands."""
    kinds: dict[tuple[str, int], list[Json]] = defaultdict(list)
    for trace in traces:
        kinds[trace["workload"], trace["batch"]].append(trace)
    lines = ["| file | what | made by | from | licence |", "|---|---|---|---|---|"]
    for (workload, batch), several in kinds.items():
        dates = [trace["date"] for trace in several]
        files = ", ".join(f"`traces/{trace['file']}`" for trace in several)
        if workload == "copies":
            what = "chunks of host memory, pinned or pageable, copied to the GPU, multiplied, and copied back; on one "
            what += "stream, and on a stream for each kind of work"
        else:
            what = f"one warm call each of `{workload}`, batch {batch}, float32, under one approach: its operators, "
            what += "the kernels of every stream, and their launches"
        lines.append(f"| {files} | {what} | the commands below | {where(about, dates)} | MIT, as the kit |")
    commands = [f"{trace['command']} --out traces/{trace['file']}" for trace in traces]
    return "\n".join([*lines, "", "```sh", *commands, "```", ""])


def measured(about: Json, comparisons: Sequence[Json]) -> str:
    """A Markdown table: a row for each network and batch under each approach."""
    lines = [
        f"{where(about, [found['about']['date'] for found in comparisons])}.".replace("recorded", "Measured", 1),
        "Speed-up over `sequential`, with its interval; the intervals are corrected for all rows of one comparison.",
        "",
        "| network | batch | approach | median ms | speed-up | verdict | same output |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in comparisons:
        for row in found["approaches"]:
            place = f"| {found['workload']} | {found['batch']} | {row['name']}"
            if not row["available"]:
                lines.append(f"{place} | - | - | {row['reason'].replace('|', '/')} | - |")
                continue
            ratio = row["ratio"]
            speed = f"{ratio['estimate']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            lines.append(
                f"{place} | {row['median_ms']:.3f} | {speed} | {row['verdict']} | {'yes' if row['equal'] else 'NO'} |"
            )
    return "\n".join([*lines, ""])
