"""Notebook 08: its quizzes by name, and what each reveals."""

from __future__ import annotations

from collections.abc import Mapping

from kit.labs import conclusions
from kit.labs.conclusions import fastest, told
from kit.labs.feeding.pipelines import Runs
from kit.labs.speed import size
from kit.labs.threads import IMPOSSIBLE
from kit.labs.transports import PICKLED, QUEUED
from kit.measuring.comparison import Comparison
from kit.views.quiz import Quiz

LOOP, ON_THREADS, IN_PROCESSES = "sequential(threads=1)", "threads(threads=1)", "processes(threads=1)"
ON_RANKS = "ranks(threads=1)"
QUIZZES = {
    "feed": (
        "Which approach makes inputs of small files fastest?",
        ["a loop", "threads", "a pool of processes", "a DataLoader with workers"],
    ),
    "lock": (
        "For which kinds of work are threads faster than a loop?",
        ["none", "waiting only", "all but pure Python", "all four"],
    ),
    "cross": (
        "From which size on is a queue of torch.multiprocessing faster than a pickled copy?",
        ["1 kB (always)", "10 kB", "100 kB", "1 MB", "10 MB", "64 MB", "never"],
    ),
    "line": (
        "The pipeline against one frame after the other: frames per second, and the time from a frame to its label?",
        ["both better", "more frames/s, each frame takes longer", "no more frames/s", "fewer frames/s"],
    ),
}
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000)  # bytes, of the options of "cross"
_KINDS = {"sequential": "a loop", "threads": "threads", "processes": "a pool of processes"}
_KINDS |= {"mp_pool": "a pool of processes", "loader": "a DataLoader with workers"}


def sizes() -> tuple[int, ...]:
    """Bytes of the tensors that the notebook sends to a process and back."""
    return SIZES[:: size(1, 2)]


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def feed_answer(fed: Comparison) -> str:
    """The kind of approach whose best row is faster than the best rows of all other kinds, or why none is known."""
    best: dict[str, str] = {}
    for row in fed.rows:
        kind = _KINDS.get(row.name.partition("(")[0])
        # A loader without workers loads in the calling thread, as a loop does.
        kind = "a loop" if row.name == "loader" else kind
        if kind and row.ratio and (kind not in best or row.ratio.estimate > _estimate(fed, best[kind])):
            best[kind] = row.name
    found = fastest(fed, best.values())
    return next((kind for kind, name in best.items() if name == found), found)


def _estimate(fed: Comparison, name: str) -> float:
    ratio = fed[name].ratio
    return ratio.estimate if ratio else 0.0


def lock_answer(lock: Mapping[str, Comparison], locked: bool) -> str:
    """For which kinds of work threads beat a loop; each of them has to be decided.

    Args:
        locked: whether this Python has a GIL: then no gain of pure Python is believed.
    """
    none, waiting, but_python, all_four = QUIZZES["lock"][1]
    found = {
        name: told(each, ON_THREADS, faster="faster", slower="not faster", same="not faster")
        for name, each in lock.items()
    }
    for said in found.values():
        if said not in ("faster", "not faster"):
            return said
    gained = frozenset(name for name, said in found.items() if said == "faster")
    if locked and "python" in gained:
        return IMPOSSIBLE
    options = {frozenset(): none, frozenset({"io"}): waiting, frozenset({"io", "opencv", "torch"}): but_python}
    options[frozenset(lock)] = all_four
    return options.get(gained, f"not one of these: faster here are {', '.join(sorted(gained))}")


def cross_answer(trips: Mapping[int, Comparison]) -> str:
    """The smallest size from which on the queue beats the pickled copy at every size, or why it is not known."""
    options, measured = dict(zip(SIZES, QUIZZES["cross"][1][:-1], strict=True)), sorted(trips)
    said = {n: told(trips[n], QUEUED, PICKLED, faster="faster", slower="not", same="not") for n in measured}
    since = None
    for n in reversed(measured):
        if said[n] not in ("faster", "not"):
            return f"{said[n]} (at {n:,} bytes)"
        if said[n] == "not":
            break
        since = n
    if since is None:
        return QUIZZES["cross"][1][-1]
    smaller = max((n for n in SIZES if n < since), default=since)
    if since in options and smaller not in (since, *measured):
        below = max((n for n in measured if n < since), default=0)
        return f"not decided: from a size between {below:,} and {since:,} bytes on; none between them was measured"
    return options.get(since, f"not one of these: from {since:,} bytes on")


def line_answer(played: Comparison, runs: Runs) -> str:
    """What the pipeline does to frames a second, and to the time of one frame."""
    both, longer, same, fewer = QUIZZES["line"][1]
    said = told(played, "pipeline", faster="faster", slower=fewer, same=same)
    if said != "faster":
        return said
    if runs.doubt:
        return f"not decided: {runs.doubt}"
    line, alone = runs.latency_ms("pipeline"), runs.latency_ms("sequential")
    if line.low > alone.high:
        return longer
    return both if line.high < alone.low else "not decided: these rounds do not tell which frame takes longer"
