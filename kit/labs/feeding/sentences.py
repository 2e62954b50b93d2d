"""Notebook 08: its sentences and tables, and its card."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from kit.labs.causes import part_ms
from kit.labs.conclusions import Claim, card, claim_faster, decided, fastest, in_a_cell, no_gain, row_of, truth
from kit.labs.feeding.answers import IN_PROCESSES, LOOP, ON_RANKS, ON_THREADS
from kit.labs.measured import call_ms, overlap
from kit.labs.threads import IMPOSSIBLE
from kit.labs.transports import PICKLED, QUEUED
from kit.measuring.comparison import Comparison, Row
from kit.text import markdown_table
from kit.trace import Trace, wall_ns
from kit.workloads import guide
from kit.workloads.medians import Median

NEW = "published_pool"


def parts_table(traces: Mapping[str, Trace]) -> str:
    """The steps from a file to an input, for each size of the pictures: medians over the files of one call."""
    parts = {size: part_ms(trace) for size, trace in traces.items()}
    steps = dict.fromkeys(step for found in parts.values() for step in found)
    rows = [(step, *(found[step].ms for found in parts.values())) for step in steps]
    table = markdown_table(("step", *parts), "l" + "r" * len(parts), rows)
    return (
        f"{table}\n\nThe last step has the name of the library that does it: resize and normalise. (Times of a file: "
        "medians over the files of one call, with their intervals.)"
    )


def about_feeding(fed: Mapping[str, Comparison]) -> str:
    """For each size of the files: which approach is faster than every other one."""
    return "\n".join(f"- {size} files: {_fastest(each)}" for size, each in fed.items())


def _fastest(fed: Comparison) -> str:
    found = fastest(fed)
    if found not in [row.name for row in fed.rows]:
        return f"no approach is known to be faster than every other: {found}."
    timing = fed[found].timing
    assert timing is not None
    rate = Median.of(1e9 * fed.items / timing.samples_ns)
    return f"`{found}` is faster than every other approach, with {rate.number} files/s."


def about_first_epoch(first: Trace, fed: Comparison, name: str) -> str:
    """A loader's first epoch, which starts its workers, beside later ones."""
    timing = fed[name].timing
    later = call_ms(timing).ms if timing else decided(fed, name)
    return (
        f"The same files: {wall_ns(first) / 1e6:,.0f} ms with new workers (one call, so without an interval); {later} "
        "with workers that stay."
    )


def lock_table(lock: Mapping[str, Comparison]) -> str:
    """Each kind of work by each approach, with the verdicts, and with the caveats that no verdict tells already."""
    rows = [
        (name, f"`{row.name}`", _rate(rates, row), row.ratio_text, in_a_cell(row.summary))
        for name, rates in lock.items()
        for row in rates.rows
    ]
    caveats = dict.fromkeys(
        f"- {name}: {said}" for name, rates in lock.items() for said in rates.caveats if not _in_a_verdict(said, rates)
    )
    table = markdown_table(("work", "approach", "files/s", "speed-up over the loop", "verdict"), "llrll", rows)
    return "\n".join([table, "", *caveats])


def _in_a_verdict(caveat: str, rates: Comparison) -> bool:
    """Whether a verdict says already what the caveat begins with: what others took of the cores."""
    others = str(rates.taken)
    return caveat.startswith(others) and any(others in row.summary for row in rates.rows)


def _rate(rates: Comparison, row: Row) -> str:
    return Median.of(1e9 * rates.items / row.timing.samples_ns).number if row.timing else "-"


def about_lock(lock: Mapping[str, Comparison]) -> str:
    """How long a file takes in the loop and on a thread, and how far the threads' bars overlap."""
    lines = []
    for name, rates in lock.items():
        times, said = [_file_ms(rates, each) for each in (LOOP, ON_THREADS)], decided(rates, ON_THREADS)
        timing = rates[ON_THREADS].timing
        shared = overlap(timing) if timing else None
        if None in times or shared is None:
            lines.append(f"- **{name}**: {said}")
            continue
        alone, beside = (each.ms for each in times if each)
        lines.append(
            f"- **{name}**: a file takes {alone} in the loop and {beside} on a thread; their bars overlap for "
            f"{shared.percent} of the time{f'. **{said}**' if said.startswith('not ') else ''}."
        )
    return "\n".join(lines)


def _file_ms(rates: Comparison, name: str) -> Median | None:
    row = row_of(rates, name)
    turns = [turn for turn in row.timing.turns if turn] if row and row.timing else []
    return Median.of(float(np.mean(list(turn.tasks.values()))) / 1e6 for turn in turns) if turns else None


def snippet() -> str:
    """The guide's worker and its call, as they run in the next cell."""
    return _python(guide.process_image, "result = mp.spawn(process_image, args=(images,), nprocs=4)")


def _mended_snippet() -> str:
    call = "results = torch.empty_like(images).share_memory_()\n"
    call += "mp.spawn(process_share, args=(images, results, 4), nprocs=4)"
    return _python(guide.process_share, call)


def _python(worker: Callable[..., object], call: str) -> str:
    """The source of a worker without its annotations, and its call, as a block of code in Markdown."""
    source = inspect.getsource(worker)
    body = "\n".join(line for line in source.splitlines() if '"""' not in line)
    body = re.sub(r": (Any|int|Tensor)\b| -> (Any|None)", "", body)
    return f"```python\n{body}\n\n\n{call}\n```"


def about_spawn(spawned: guide.Spawned) -> str:
    """What each process of the guide's call saw: no error, and nothing that anybody wanted."""
    rows = [(f"process {i}", *saw) for i, saw in enumerate(spawned.saw)]
    table = markdown_table(("", "`image` is", "`rank` is", "`image * rank` is"), "llll", rows)
    return (
        f"{table}\n\n**No error, and no result**: `spawn` returned `{spawned.returned}`. It passes the rank **first**, "
        "so `image` is the rank, and `rank` is the whole batch. Each process works on all images, and what it returns "
        "is thrown away."
    )


def about_mended(mended: guide.Mended, images: Tensor) -> str:
    """The mended worker and its call, and what it gave: each process its share, and a result for each image."""
    rows = [(f"process {i}", f"{share} of {len(images)} images") for i, share in enumerate(mended.shares)]
    workers = len(mended.shares)
    want = torch.cat([part * rank for rank, part in enumerate(images.tensor_split(workers))])
    right = torch.equal(mended.results, want)
    said = "The results are in shared memory, and equal those computed in this process."
    if not right:
        said = "**The results differ from those computed in this process.** Run the cell again."
    return f"{_mended_snippet()}\n\n{markdown_table(('', 'got'), 'll', rows)}\n\n{said}"


def about_ranks(divided: Comparison) -> str:
    """Ranks beside the processes that the kit keeps, in the same rounds."""
    ranks, kept = ON_RANKS, IN_PROCESSES
    row = row_of(divided, ranks, kept)
    said = decided(divided, ranks, kept)
    return f"`{ranks}` against `{kept}`: {row.ratio_text}, **{said}**." if row else f"`{ranks}`: {said}."


def conclusion(
    fed: Mapping[str, Comparison],
    lock: Mapping[str, Comparison],
    spawned: guide.Spawned,
    recipes: Mapping[str, Comparison],
    divided: Comparison,
    trips: Mapping[int, Comparison],
    played: Comparison,
    locked: bool,
) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    python = lock["python"]
    helpless = no_gain(python, ON_THREADS)
    helpless = IMPOSSIBLE if locked and helpless == "false" else helpless
    large = max(trips)
    return card(
        [
            _as_published(spawned),
            *(
                claim_faster(f"The guide's pool, new for each call, is faster than a loop, for {size} files", each, NEW)
                for size, each in recipes.items()
            ),
            *(
                claim_faster(f"A pool that is kept is faster than a loop, for {size} files", each, "mp_pool")
                for size, each in fed.items()
            ),
            claim_faster(
                f"At {large:,} bytes, a queue of torch.multiprocessing is faster than a pickled copy",
                trips[large],
                QUEUED,
                PICKLED,
            ),
            claim_faster("For work by OpenCV, threads are faster than a loop", lock["opencv"], ON_THREADS),
            Claim(
                "For work in pure Python, threads are at most 1.25x as fast as a loop",
                truth(helpless, "true"),
                helpless
                if helpless.startswith("not ")
                else f"{python[ON_THREADS].ratio_text}, {decided(python, ON_THREADS)}",
            ),
            claim_faster("For work that waits for a disk, threads are faster than a loop", lock["io"], ON_THREADS),
            claim_faster("For large files, ranks of torch.distributed are faster than a loop", divided, ON_RANKS),
            claim_faster("A pipeline labels more frames a second than one frame after the other", played, "pipeline"),
        ]
    )


def _as_published(spawned: guide.Spawned) -> Claim:
    """What spawn passes hangs on no clock: this is decided on any machine."""
    whole = all(image.startswith("the number") for image, _, _ in spawned.saw) and spawned.returned is None
    by = f"spawn passed the rank first and the whole batch second, {len(spawned.saw)} times, and returned None"
    return Claim(
        "The guide's call of spawn gives each process its own share of the images",
        "false" if whole else "not decided",
        by if whole else "the processes got something else: see section 3",
    )
