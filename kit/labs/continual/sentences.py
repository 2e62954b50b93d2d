"""What notebook 09's measurements say, as tables and sentences in Markdown; a doubtful row concludes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kit.labs.conclusions import decided, row_of
from kit.labs.continual.quizzes import percent, share_doubt, slower
from kit.macs import macs_of_call
from kit.measuring.comparison import Comparison
from kit.text import counted, markdown_table, milliseconds
from kit.trace.kernels import Kernels
from kit.workloads.continual import Side, WindowVersusStep
from kit.workloads.step_parts import StepParts


def speed_told(comparison: Comparison, name: str, subject: str, other: str, baseline: str | None = None) -> str:
    """One sentence: how fast a row is against another one, or that nothing is decided, with what was seen.

    Args:
        subject: what the row is, as in "the kit's step".
        other: what it is compared with.
        baseline: as of :func:`kit.labs.conclusions.decided`.
    """
    said, row = decided(comparison, name, baseline), row_of(comparison, name, baseline)
    subject = subject[0].upper() + subject[1:]
    if row is None or row.ratio is None:
        return f"{subject} against {other}: {said}."
    if said == "faster":
        return f"{subject} is **{row.ratio} as fast** as {other}."
    if said == "slower":
        return f"{subject} is **{slower(row.ratio)}** than {other}."
    if said == "no difference found":
        return f"{subject} against {other}: **{row.summary}** (speed-up {row.ratio})."
    seen = "" if said == "wrong output" else f" A speed-up of {row.ratio_text} was seen; it decides nothing."
    return f"{subject} against {other}: **{said}**.{seen}"


# Kernels and MACs -----------------------------------------------------------------------------------------------------


def kernels_in_words(found: Kernels, family: str = "convolution") -> str:
    """What the calls of a family ran on, as in ``slow_conv3d (4 calls), oneDNN (2 calls)``."""
    calls: Counter[str] = Counter()
    for kernel, use in found.items():
        if kernel.family == family:
            calls[kernel.name] += use.calls
    return ", ".join(f"{name} ({counted(n, 'call')})" for name, n in calls.most_common()) or "none recorded"


def kernels_table(steps: Comparison) -> str:
    """What the convolutions of each row of a comparison ran on, as Markdown."""
    rows = [(row.name, kernels_in_words(row.kernels or {})) for row in steps.rows]
    return markdown_table(("row", "kernels of its convolutions"), "ll", rows)


def macs_told(sides: Mapping[str, Side]) -> str:
    """What the window, and the steps of library and kit, count in MACs, in a sentence."""
    macs = {name: macs_of_call(each, *args) / 1e6 for name, (each, args) in sides.items()}
    return (
        f"The window needs {macs['window']:,.0f} million MACs, the library's step **{macs['library']:,.0f} million** "
        f"and the kit's step {macs['kit']:,.0f} million: the library's step multiplies and adds "
        f"{macs['library'] / macs['kit']:.1f} times as often as the kit's."
    )


# The parts of a step --------------------------------------------------------------------------------------------------


def parts_table(parts: StepParts) -> str:
    """What a step of the library and one of the kit are made of, in milliseconds with intervals, and the difference."""
    library, kit, gaps = parts.ms("library"), parts.ms("kit"), parts.gaps()
    rows = [(part, library[part], kit[part], gaps[part]) for part in library]
    whole = ("**whole step**", *(f"**{each}**" for each in parts.whole()))
    return markdown_table(("ms [95%]", "library", "kit", "library - kit"), "lrrr", [*rows, whole])


def parts_told(parts: StepParts) -> str:
    """What may be said of the two steps: a speed-up of one over the other between equal kernels only."""
    found, gaps = parts.comparison, parts.gaps()
    ran = {side: kernels_in_words(kernels) for side, kernels in parts.kernels.items()}
    lines = [
        f"As PyTorch chooses, the library's convolutions ran on {ran['library']}, and the kit's on {ran['kit']}.",
        speed_told(
            found, "library_onednn", "the library's step on oneDNN", "the same step on the kernels that PyTorch chooses"
        ),
        speed_told(
            found, "library_without_zeros", "on oneDNN, the library's step without the zeros", "the same step with them"
        ),
        speed_told(found, "kit_onednn", "both on oneDNN, the kit's step", "the library's"),
    ]
    if decided(found, "kit_onednn") != "faster":
        gives = "It gives other things: explicit states, the model's own outputs, and no global mode"
        lines.append(f"So no speed-up is claimed for the kit's step. {gives}.")
    elif larger := {part: gap.estimate for part, gap in gaps.items() if gap.low > 0 and part != "choice of kernel"}:
        most = max(larger, key=larger.__getitem__)
        lines.append(f"The largest part of that difference is: {most}, {gaps[most]} ms.")
    return "\n".join(f"- {line}" for line in lines)


# A step against a window ----------------------------------------------------------------------------------------------


def against_table(found: Mapping[str, WindowVersusStep]) -> str:
    """What a prediction costs by a window and by a step, a row for each of these, and on which kernels, as Markdown."""
    rows = []
    for name, each in found.items():
        took = milliseconds(each.window_ms), milliseconds(each.step_ms)
        share = percent(each.realised) if not share_doubt(each) else "not decided"
        ran = " / ".join(map(kernels_in_words, each.kernels.values()))
        rows.append(
            (name, *took, f"{each.counted:.1f}x", each.comparison["step"].ratio_text, share, ran, each.equality)
        )
    head = (
        "",
        "window",
        "step",
        "MACs ratio",
        "speed-up [95%]",
        "part reached",
        "kernels: window / step",
        "same output",
    )
    return markdown_table(head, "lrrrrrll", rows)


def against_told(found: Mapping[str, WindowVersusStep]) -> str:
    """The table of windows and steps, and which part of the counted ratios the speed-ups reach."""
    return f"{against_table(found)}\n\n{realised_told(found)}"


def realised_told(found: Mapping[str, WindowVersusStep]) -> str:
    """Which part of the counted ratios the speed-ups reach, and from which rows nothing is concluded."""
    doubts = {name: share_doubt(each) for name, each in found.items()}
    shares = {name: each.realised for name, each in found.items() if not doubts[name]}
    lines = []
    if shares:
        reached = ", ".join(f"**{percent(part)}** ({name})" for name, part in shares.items())
        lines.append(f"Part reached = speed-up / MACs ratio: {reached}.")
    others = [f"- {name}: {said.removeprefix('not decided: ')}" for name, said in doubts.items() if said]
    if others:
        lines.append("\n".join(["Nothing is concluded from these rows:\n", *others]))
    return "\n\n".join(lines)


def share_told(found: WindowVersusStep) -> str:
    """The speed-up of one network's step, beside its MACs ratio."""
    said = speed_told(found.comparison, "step", "the step", "the sliding window")
    reached = "" if share_doubt(found) else f" The speed-up reaches **{percent(found.realised)}** of the MACs ratio."
    return f"{said} The window needs {found.counted:.1f} times the MACs of the step.{reached}"


def prepared_told(found: Comparison) -> str:
    """What a comparison under unequal conditions would claim, and what equal ones say.

    Args:
        found: from :func:`kit.workloads.continual.prepared_or_not`.
    """
    lines = [
        speed_told(found, "step_prepared", "the prepared step", "the unprepared window"),
        speed_told(found, "step_prepared", "the prepared step", "the prepared window", "window_prepared"),
        speed_told(found, "step", "the unprepared step", "the unprepared window"),
    ]
    told = "\n".join(f"- {line}" for line in lines)
    return f"{told}\n\nOnly the last two lines compare a step with a window under the same conditions."


def side_told(step: Comparison, window: Comparison) -> str:
    """What running branches at the same time, or compiling, changes: of a step, and of a whole window."""
    names = [row.name for row in step.rows if not row.baseline]
    lines = [speed_told(step, name, f"a step: {name}", "sequential") for name in names]
    lines += [speed_told(window, "threads", "a whole window: threads", "sequential")]
    return "\n".join(f"- {line}" for line in lines)
