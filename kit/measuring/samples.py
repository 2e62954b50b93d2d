"""A comparison of times that :func:`kit.compare` did not measure, by the same rules for verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kit.equality import Equality
from kit.machine import hardware, load
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.statistics import with_verdicts
from kit.trace import Event, Lane, Trace

SAME = Equality(True, 0.0)


def of_samples(
    samples_ns: Mapping[str, Sequence[float]],
    inputs: str,
    *,
    taken: load.Taken | None = None,
    equal: Mapping[str, Equality] | None = None,
    items: int = 1,
    unit: str = "call",
) -> Comparison:
    """A comparison of times measured in the same interleaved rounds; the first name is the baseline.

    Args:
        samples_ns: name -> the time of each round, ``(rounds,)`` in nanoseconds; the same number of rounds for all.
        inputs: what was measured, in words.
        taken: CPU time that other programs took during the rounds; None: not known.
        equal: name -> whether its output equals the baseline's; a name that is not given counts as equal.
    """
    timings = {name: _timing(name, samples) for name, samples in samples_ns.items()}
    first = next(iter(timings.values()))
    rows = [
        Row(
            name,
            timing=timing,
            ratio=Ratio(1, 1, 1) if timing is first else None,
            equality=(equal or {}).get(name, SAME),
            baseline=timing is first,
            paired_baseline=first,
        )
        for name, timing in timings.items()
    ]
    caveats = (f"{taken}.",) if taken and taken.share > load.NOTABLE else ()
    found = with_verdicts(rows)
    return gated(
        Comparison(
            tuple(found),
            len(first.samples_ns),
            inputs,
            caveats,
            cores=hardware.detect().cores,
            items=items,
            unit=unit,
            taken=taken,
        )
    )


def _timing(name: str, samples_ns: Sequence[float]) -> Timing:
    samples = np.asarray(samples_ns, float)
    call = Event(name, "call", 0, round(float(np.median(samples))), Lane(1, 1, "caller"))
    return Timing(samples, 1, Trace.build([call]))
