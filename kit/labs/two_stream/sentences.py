"""What notebook 01 says: every number is a median over all rounds of a comparison, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit.labs.conclusions import Claim, Truth, card, claim_faster, decided, in_a_cell, row_of, truth
from kit.labs.measured import branch_ms, branch_rounds, call_ms, outside_ms, overlap
from kit.labs.two_stream.answers import (
    DATA_PARALLEL,
    ONE_THREAD,
    QUIZZES,
    doubt,
    parallel_answer,
    temporal_by_spatial,
)
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison
from kit.measuring.gate import NO_OVERLAP
from kit.text import counted, markdown_table
from kit.workloads.medians import Median
from kit.workloads.recognition import HALVES, Recognition
from kit.workloads.training import STREAMS, Evaluation

AGAIN = "Close other programs and run the measurement again."


def about_flow(errors: Mapping[str, float], still: float) -> str:
    """How good each method of estimating the flow is.

    Args:
        errors: method -> its average end-point error in pixels.
        still: the error of the guess that nothing moves.
    """
    said = " and ".join(f"`{method}` **{error:.2f} pixels**" for method, error in errors.items())
    return (
        "The average distance between the estimated and the true motion (end-point error), for the two methods that "
        f"the kit takes from OpenCV: {said}. For comparison: if we guessed that nothing moves, it would be {still:.2f} "
        "pixels."
    )


def about_recognition(told: Recognition, labels: Mapping[str, str] | None) -> str:
    """The likeliest textures and motions of a clip, and the true ones where they are known."""
    rows = [
        (half, ", ".join(f"{name} {probability:.0%}" for name, probability in getattr(told, half)[:3]))
        for half in HALVES
    ]
    if labels is not None:
        known = f"The truth: **{', '.join(labels.values())}**."
    else:
        known = "The true answer is not known. The network knows generated clips only: it names what is most similar."
    return f"{markdown_table(('', 'most likely'), 'll', rows)}\n\n{known}"


def about_knowledge(result: Evaluation) -> str:
    """How often each stream is right, beside guessing."""
    head = ("stream", *HALVES, "both")
    rows = [(stream, *(result.share(stream, half) for half in (*HALVES, "joint"))) for stream in STREAMS]
    textures, motions = map(len, HALVES.values())
    guessed = ("guessing", f"{1 / textures:.0%}", f"{1 / motions:.0%}", f"{1 / textures / motions:.0%}")
    total = result.share("fused", "joint").total
    lines = [
        f"- The {stream} stream {_knows(result.share(stream, half).interval, 1 / len(names))} the {half}."
        for stream in STREAMS[:2]
        for half, names in HALVES.items()
    ]
    return (
        f"Correct on {total} clips that the network has never seen, with 95% intervals:\n\n"
        f"{markdown_table(head, 'lrrr', [*rows, guessed])}\n\n" + "\n".join(lines)
    )


def _knows(interval: tuple[float, float], chance: float) -> str:
    low, high = interval
    if low > 0.7:
        return "knows"
    if low > chance:
        return "is better than guessing, but often wrong, about"
    return "shows no sign of knowing" if high < 0.5 else "has too few clips here to show whether it knows"


def about_first_call(calls_ms: Sequence[float]) -> str:
    """What the first of several calls took beside the later ones.

    Args:
        calls_ms: in the order in which they were made, at least 7.
    """
    first, later = calls_ms[0], calls_ms[1:]
    usual, slower = Median.of(later), sum(ms > calls_ms[0] for ms in later)
    said = f"The first call took **{first:.1f} ms**. The median of the {len(later)} later calls is {usual.ms}. "
    if first <= usual.estimate:
        said += "Here the first call was not slower than that median. "
    elif first <= usual.high:
        said += "The first call lies within that interval, so these calls do not show whether it was slower. "
    elif slower:
        said += f"The first call was slower than that median, and {counted(slower, 'later call')} even slower. "
    else:
        said += "No later call was as slow as the first. "
    return said + (
        "A first call also allocates memory and chooses kernels, so it is not a measurement of the network. Nor is any "
        f"other single call: the slowest of the later calls took {max(later) / min(later):.1f} times as long as the "
        "fastest."
    )


def about_cost(comparison: Comparison) -> str:
    """What each stream takes at one intra-op thread."""
    ratio, said = temporal_by_spatial(comparison), doubt(comparison, ONE_THREAD)
    if ratio is None:
        return f"The streams' times are not known: {in_a_cell(said or 'they were not recorded')}."
    streams = branch_ms(comparison.branches_alone[1])
    found = (
        f"On one thread the spatial stream takes **{streams['spatial'].ms}**, the temporal stream "
        f"**{streams['temporal'].ms}**: the temporal stream takes {ratio.times} as long. (Medians of "
        f"{comparison.rounds} rounds, with 95% intervals.)"
    )
    if said:
        return f"{found} That is **{in_a_cell(said)}**. It decides nothing. {AGAIN}"
    return f"{found} Only the first convolution differs between them: it reads 20 channels in place of 3."


def about_bound(comparison: Comparison) -> str:
    """The least time of a call with a core for each stream, from the streams' medians at one thread."""
    limits, said, cores = _limits(comparison), doubt(comparison, ONE_THREAD), comparison.cores
    if limits is None:
        return f"There is no bound: {in_a_cell(said or 'the streams were not recorded')}."
    span, work, split, bound = limits
    rounds = [*zip(*branch_rounds(comparison.branches_alone[1]).values(), strict=True)]
    gain = Median.of(sum(each) / max(*each, sum(each) / cores) for each in rounds)
    found = (
        f"Span, the longest stream: {span.ms}. Work, both streams: {work.ms}; divided by {counted(cores, 'core')}: "
        f"{split.ms}.\n\n"
    )
    if said:
        return (
            f"{found}From these times, a call would take at least {bound.ms} if each stream stays on one core, and at "
            f"least {split.ms} if each operator is split over all cores. But that is **{in_a_cell(said)}**: the "
            f"streams' times may be too long, and then the limits are, too. {AGAIN}"
        )
    found += (
        f"**If each stream stays on one core, a call cannot take less than {bound.ms} here.** That would be "
        f"{gain.times} as fast as one thread. If each operator is split over all cores, a call cannot take less than "
        f"{split.ms}."
    )
    return f"{found} With one core the two limits are the same: nothing can overlap." if cores == 1 else found


def _limits(comparison: Comparison) -> tuple[Median, Median, Median, Median] | None:
    """Span, work, work / cores, and the larger of span and work / cores; None where the streams are not known."""
    alone = comparison.branches_alone.get(1)
    streams = [*branch_ms(alone).values()] if alone else []
    if not streams:
        return None
    ends = [*zip(*streams, strict=True)]  # the estimates, the lower ends, the upper ends
    span, work = Median(*map(max, ends)), Median(*map(sum, ends))
    split = Median(*(each / comparison.cores for each in work))
    return span, work, split, Median(*map(max, span, split))


def about_side(comparison: Comparison) -> str:
    """Two streams on threads against one after the other: verdict, overlap, and how much of the bound was reached."""
    row, lead = row_of(comparison, "threads"), comparison.baseline
    if row is None or row.timing is None or lead.timing is None:
        return f"**threads** was {in_a_cell(decided(comparison, 'threads'))}."
    lines = [_seen(comparison), *_over_one_thread(comparison)]
    if (share := overlap(row.timing)) is not None:
        rest = " In some rounds they did not overlap."
        if share.high <= NO_OVERLAP:
            rest = " They ran one after the other."
        elif share.low > NO_OVERLAP:
            rest = " In the rest of it one stream ran alone." if share.low < 0.995 else ""
        lines.append(
            f"- **Overlap**: both streams ran at the same time for {share.percent} of the time in which any of them "
            f"ran.{rest}"
        )
    limits = _limits(comparison)
    if limits is not None and not doubt(comparison, "threads"):
        split, bound = limits[2:]
        lines.append(
            f"- **Bound, each stream on one core**: {bound.ms}. {_reached('threads', bound, call_ms(row.timing))}"
        )
        lines.append(
            f"- **Bound, each operator on all cores**: {split.ms}. {_reached(lead.name, split, call_ms(lead.timing))}"
        )
    return "\n".join(lines)


def _reached(name: str, bound: Median, call: Median) -> str:
    """How much of the bound's speed a call reached; more than all of it is a disturbed measurement."""
    share = bound.over(call)
    if share.low > 1 + SMALLEST_EFFECT:
        return (
            f"`{name}` took {call.ms}, which is less and cannot be: one of the two measurements was disturbed, and "
            f"nothing follows from them. {AGAIN}"
        )
    low, most = f"{share.low:.0%}", f"{min(1.0, share.high):.0%}"
    if share.high > 1:
        return f"`{name}` took {call.ms}: between {low} and {most} of that speed."
    return f"`{name}` took {call.ms}: {share.percent} of that speed."


def about_parallel(comparison: Comparison) -> str:
    """What nn.DataParallel did with the streams, beside threads."""
    said, (together, apart) = parallel_answer(comparison), QUIZZES["parallel"][1]
    shares = {
        row.name: share.percent
        for row in comparison.rows
        if row.timing is not None and (share := overlap(row.timing)) is not None
    }
    found = ", ".join(f"`{name}` {share}" for name, share in shares.items())
    seen = f"Share of the time in which both streams ran: {found}. " if found else ""
    if said == apart:
        return (
            f"{seen}**In nn.DataParallel the streams run one after the other**: it splits a batch over several GPUs, "
            "never a model into its branches. Without several GPUs it calls the module."
        )
    if said == together:
        return f"{seen}**In nn.DataParallel the streams ran at the same time**: look at its lanes."
    return f"{seen}What nn.DataParallel does is {in_a_cell(said)}."


def about_toy(comparison: Comparison) -> str:
    """The toy on threads: the verdict, its work, and what handing it out costs."""
    row, lead = row_of(comparison, "threads"), comparison.baseline
    if row is None or row.timing is None:
        return f"**threads** was {in_a_cell(decided(comparison, 'threads'))}."
    lines = [_seen(comparison), *_over_one_thread(comparison)]
    limits = _limits(comparison)
    if limits is not None and any(row.timing.turns):
        lines.append(
            f"- **Work**: both streams together take {limits[1].ms} on one thread.\n- **Overhead**: on threads, "
            f"{outside_ms(row.timing).ms} of a call is outside of the streams: handing out, waiting, merging."
        )
    rows = [each for each in comparison.rows if not each.baseline and each.timing is not None]
    verdicts = {each.name: decided(comparison, each.name) for each in rows}
    for verdict in ("faster", "slower", "no difference found"):
        names = [f"`{name}`" for name, said in verdicts.items() if said == verdict]
        lines += [f"- **{verdict}** {_than(verdict, lead.name)}: {', '.join(names)}"] if names else []
    open_rows = [f"`{name}`" for name, said in verdicts.items() if said.startswith("not ")]
    lines += [f"- **not decided** by these rounds: {', '.join(open_rows)}"] if open_rows else []
    return "\n".join(lines)


def _than(verdict: str, lead: str) -> str:
    return f"between it and {lead}" if verdict == "no difference found" else f"than {lead}"


def _seen(comparison: Comparison) -> str:
    """Threads against one after the other: the times, the speed-up, and the verdict."""
    row, lead = comparison["threads"], comparison.baseline
    assert row.timing is not None and lead.timing is not None  # noqa: PT018 - asked before
    said = decided(comparison, "threads")
    seen = (
        f"One after the other (`{lead.name}`) a call took {call_ms(lead.timing).ms}; on threads "
        f"{call_ms(row.timing).ms}. Speed-up of threads: {row.ratio_text}: "
    )
    if said.startswith("not "):
        again = AGAIN if row.decidable else "Measure more rounds."
        return f"- {seen}**{in_a_cell(said)}**. This is what was seen, and it decides nothing. {again}"
    return f"- {seen}**{said}**."


def _over_one_thread(comparison: Comparison) -> list[str]:
    """A line on threads against one after the other on one intra-op thread, where that was measured too."""
    row = row_of(comparison, "threads", ONE_THREAD)
    if row is None:
        return []
    said = decided(comparison, "threads", ONE_THREAD)
    if said.startswith("not ") and said == decided(comparison, "threads"):
        return [f"- Over `{ONE_THREAD}`: {row.ratio_text}: **not decided**, for the same reason."]
    return [f"- Over `{ONE_THREAD}`: {row.ratio_text}: **{in_a_cell(said)}**."]


def conclusion(side: Comparison, parallel: Comparison, toy: Comparison) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    said = parallel_answer(parallel)
    row: Any = row_of(parallel, DATA_PARALLEL)
    share = overlap(row.timing) if row is not None and row.timing is not None else None
    seen = f"{said}: both ran for {share.percent} of the time in which any of them ran" if share else said
    return card(
        [
            _gains(
                "Running the streams one after the other, on all cores or on one, wastes time: threads are faster", side
            ),
            _gains("The toy on threads is faster than one after the other, on all cores or on one", toy),
            Claim("nn.DataParallel runs the streams at the same time", truth(said, QUIZZES["parallel"][1][0]), seen),
        ]
    )


def _gains(text: str, comparison: Comparison) -> Claim:
    """The claim that threads are faster than one after the other, be it on all cores or on one thread.

    Small operators lose time when they are split over the cores. What only that loss explains is no gain of running the
    streams at the same time.
    """
    leads = [name for name in (comparison.baseline.name, ONE_THREAD) if row_of(comparison, name) is not None]
    claims = {lead: claim_faster(text, comparison, "threads", lead) for lead in leads}
    found = {claim.truth for claim in claims.values()}
    verdicts: tuple[Truth, ...] = ("false", "not decided", "true")
    said = next(each for each in verdicts if each in found)
    return Claim(text, said, "; ".join(f"over {lead}: {by}" for lead, by in _each_reason_once(claims).items()))


def _each_reason_once(claims: Mapping[str, Claim]) -> dict[str, str]:
    """What each claim says; a reason for doubt that the one before gave already is not repeated."""
    told, before = {}, ""
    for lead, claim in claims.items():
        seen, _, reason = claim.by.partition(", not decided: ")
        told[lead] = f"{seen}, not decided for the same reason" if reason and reason == before else claim.by
        before = reason
    return told
