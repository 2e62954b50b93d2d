"""``python -m bench.traces``: a large trace, read, measured and merged, beside the tools that people have.

Each turn is a process of its own, so that its peak memory is its own; of a few turns, taken in alternation, the fastest
counts. Holistic Trace Analysis pins other packages than the kit's: install it into an environment of its own and name
that one's Python in ``HTA_PYTHON``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.synthetic import synthesise

EVENTS, PARTS = 1_000_000, 8
ROUNDS = 3

# A turn prints its seconds, then its count; the rest is said by the process itself.
_TURN = """
import resource, sys, time
path = sys.argv[1]
{prepare}
start, cpu = time.perf_counter(), time.process_time()
{work}
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(f"turn {{seconds}} {{cpu}} {{{count}}} {{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}")
"""
LOAD = {
    "kit": ("from kit.trace import load_trace", "result = load_trace(path)", "len(result)"),
    "HolisticTraceAnalysis": (
        "from hta.common.trace_parser import parse_trace_dataframe as parse\n"
        "from hta.configs.parser_config import ParserConfig\n"
        "config = ParserConfig.get_default_cfg()",
        "result = parse(path, config)",
        "len(result[1])",
    ),
    "torch-tb-profiler": (
        "import tempfile\nfrom torch_tb_profiler.profiler.data import RunProfileData",
        "result = RunProfileData.parse('worker', 'span', path, tempfile.mkdtemp())",
        "len(result.events)",
    ),
}
METRICS = (
    "from kit import trace as t\ntrace = t.load_trace(path)",
    "results = [metric(trace) for metric in (t.wall_ns, t.sum_ns, t.busy_ns, t.concurrency, t.overlap_ns,"
    " t.utilisation, t.gaps, t.by_name, t.gpu_busy_ns, t.launch_delays, t.breakdown)]",
    "len(trace)",
)
MERGE = (
    "from pathlib import Path\nfrom kit import trace as t\n"
    "traces = [t.load_trace(part) for part in sorted(Path(path).iterdir())]",
    "result = t.merge(traces)",
    "len(result)",
)


@dataclass(frozen=True)
class Turn:
    """What one process measured."""

    seconds: float
    cpu_seconds: float  # of its processor: where others use the machine too, the fairer one
    events: int
    peak_mb: float  # of the whole process


def turn(python: str, parts: tuple[str, str, str], path: Path) -> Turn | None:
    """Run it once; None where it fails."""
    prepare, work, count = parts
    code = _TURN.format(prepare=prepare, work=work, count=count)
    done = subprocess.run([python, "-c", code, str(path)], capture_output=True, text=True)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("turn ")]
    if done.returncode or not found:
        print(done.stderr[-500:], file=sys.stderr)
        return None
    seconds, cpu, events, peak = found[-1]
    return Turn(float(seconds), float(cpu), int(events), float(peak))


def best(turns: list[Turn | None]) -> Turn | None:
    return min((turn for turn in turns if turn), key=lambda turn: turn.seconds, default=None)


def pythons() -> dict[str, str | None]:
    """The Python that has each tool, None where none does."""
    own = {"HolisticTraceAnalysis": "hta", "torch-tb-profiler": "torch_tb_profiler"}
    found: dict[str, str | None] = {"kit": sys.executable}
    found |= {name: sys.executable if find_spec(module) else None for name, module in own.items()}
    if os.environ.get("HTA_PYTHON"):
        found["HolisticTraceAnalysis"] = os.environ["HTA_PYTHON"]
    return found


def rows() -> list[dict[str, Any]]:
    """All rows, printed as they come."""
    results: list[dict[str, Any]] = []

    def row(name: str, found: Turn | None, kit: Turn | None = None) -> None:
        said = "peer not installed"
        if found:
            said = f"{found.seconds:8.3f} s {found.cpu_seconds:8.3f} s {found.peak_mb:8.0f} MB"
            ratios = (found.seconds / kit.seconds, found.cpu_seconds / kit.cpu_seconds) if kit else None
            said += f"   {ratios[0]:.1f}x the kit's time, {ratios[1]:.1f}x its processor time" if ratios else ""
            results.append({"name": name, **vars(found), "ratios": ratios})
        print(f"{name:56} {said}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        large, parts = Path(folder) / "large.json", Path(folder) / "parts"
        synthesise(EVENTS, large)
        size = f"{EVENTS:,} events, {large.stat().st_size / 1e6:.0f} MB"
        print(f"\n{'traces':56} {'fastest':>10} {'processor':>10} {'peak':>11}")
        turns: dict[str, list[Turn | None]] = {name: [] for name in LOAD}
        where = pythons()
        for i in range(ROUNDS):
            for name, python in where.items():
                if python and (name == "kit" or i == 0):  # the peers take half a minute
                    turns[name].append(turn(python, LOAD[name], large))
        ours = best(turns["kit"])
        row(f"load {size}: kit", ours)
        for name in list(LOAD)[1:]:
            theirs = best(turns[name])
            row(f"load {size}: {name}", theirs, ours)
        row(f"all metrics of {EVENTS:,} events", best([turn(sys.executable, METRICS, large) for _ in range(ROUNDS)]))
        large.unlink()
        parts.mkdir()
        for i in range(PARTS):
            synthesise(EVENTS // 10, parts / f"{i}.json")
        merged = best([turn(sys.executable, MERGE, parts) for _ in range(ROUNDS)])
        row(f"merge {PARTS} traces of {EVENTS // 10:,} events", merged)
    return results


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
