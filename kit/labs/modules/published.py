"""The published table of continual networks beside what the kit counts, and the clock beside both."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence

import torch

from kit.labs.conclusions import Claim, decided, row_of
from kit.labs.continual import kernels_in_words
from kit.labs.speed import size
from kit.measuring.comparison import Ratio
from kit.models.x3d import SIZES, Size, x3d
from kit.text import markdown_table, milliseconds
from kit.workloads.published import ON_ONE_DNN, PUBLISHED, Clocked, Published, Work, clocked

NEAR = 0.05  # "within 5%"
PARTS = (0.5, 0.85)  # where one option of the quiz ends and the next begins
QUIZZED = "CoX3D-S"
QUIZ = (
    f"A step of {QUIZZED} needs about 13 times fewer MACs than a window of 13 frames. At batch 1, both on oneDNN and "
    "on one thread: which part of this does the clock reach?",
    ["less than half", "half to 85%", "more than 85%"],
)
SMALL = Size(8, 64, 0.4, (16, 24, 32, 64))
SOURCE = (
    "Published: README of continual-inference 1.2.4, of the authors of *Continual 3D Convolutional Neural Networks for "
    "Real-time Processing of Videos* (2022); no measurements of ours."
)
Counts = Mapping[str, tuple[Work, Work]]  # network -> of a window and of a step


def published_table(found: Counts, published: Mapping[str, Published] = PUBLISHED) -> str:
    """What the networks cost, published and counted, in billions, as Markdown."""
    rows = []
    for name, (window, step) in found.items():
        said, (frames, side) = published[name], published[name].clip
        rows.append(
            (
                name,
                f"{frames} x {side}²",
                f"{said.window:.2f}",
                f"{window.macs / 1e9:.2f}",
                f"{_as_published(window) / 1e9:.2f}",
                f"{said.step:.2f}",
                f"{step.macs / 1e9:.3f}",
                f"{_as_published(step, True) / 1e9:.3f}",
                f"{said.reduction:.1f}x",
                f"{window.macs / step.macs:.1f}x",
            )
        )
    head = (
        *("network", "clip", "window: published", "MACs", "+ elementwise"),
        *("step: published", "MACs", "+ 2 x elementwise", "reduction: published", "MACs"),
    )
    return f"{markdown_table(head, 'llrrrrrrrr', rows)}\n\n{SOURCE}"


def published_told(found: Counts, published: Mapping[str, Published] = PUBLISHED) -> str:
    """Which published figures the count reaches within 5%, and what explains the others."""
    lines = []
    for what, twice in (("window", False), ("step", True)):
        said = {name: getattr(published[name], what) * 1e9 for name in found}
        works = {name: pair[twice] for name, pair in found.items()}
        plain = [name for name, work in works.items() if _near(work.macs, said[name])]
        explained = [
            name for name in found if name not in plain and _near(_as_published(works[name], twice), said[name])
        ]
        open_ = [name for name in found if name not in plain and name not in explained]
        also = "the elementwise operations" + (", counted twice" if twice else "")
        parts = [f"the MACs are within 5% of the published figure for {', '.join(plain)}"] if plain else []
        parts += [f"for {', '.join(explained)} they are with {also}"] if explained else []
        parts += [f"**not explained** is the difference for {', '.join(open_)}"] if open_ else []
        lines.append(f"- A {what}: {'; '.join(parts)}.")
    return "\n".join(lines)


def published_claim(found: Counts, published: Mapping[str, Published] = PUBLISHED) -> Claim:
    """The claim on the published figures."""
    wrong = [
        name
        for name, (window, step) in found.items()
        if not _near(_as_published(window), published[name].window * 1e9)
        or not _near(_as_published(step, True), published[name].step * 1e9)
    ]
    by = f"{len(found) - len(wrong)} of {len(found)} networks within 5%, counted as ptflops counts"
    by += f"; not {', '.join(wrong)}" if wrong else ""
    return Claim("The published FLOPs of the networks are right", "false" if wrong else "true", by)


def _as_published(work: Work, twice: bool = False) -> float:
    """As the published figures count: those of steps hold the elementwise operations twice."""
    return work.macs + work.elementwise * (2 if twice else 1)


def _near(count: float, said: float) -> bool:
    return abs(count / said - 1) <= NEAR


# The clock ------------------------------------------------------------------------------------------------------------


def clocked_x3d(rounds: int) -> list[Clocked]:
    """CoX3D-S at its published size, at batch 1 and 8; under ``KIT_FAST=1`` a smaller X3D."""
    name, which = (QUIZZED, SIZES["S"]) if size(1, 0) else ("a small X3D", SMALL)
    torch.manual_seed(0)
    return clocked(name, x3d(which), torch.randn(1, 3, which.frames, which.side, which.side), rounds=rounds)


def clocked_table(found: Sequence[Clocked]) -> str:
    """The clock's ratios beside those of the MACs, with the kernels, as Markdown."""
    rows = []
    for each in found:
        for where, name in (("", "PyTorch chooses"), (ON_ONE_DNN, "oneDNN")):
            window, step = (each.comparison[side + where] for side in ("window", "step"))
            ratio = row_of(each.comparison, "step" + where, "window" + where)
            ran = " / ".join(map(kernels_in_words, each.kernels(where).values()))
            took = [milliseconds(row.timing.median_ms) if row.timing else "-" for row in (window, step)]
            speed = ratio.ratio_text if ratio else "-"
            rows.append(
                (each.name, str(each.batch), name, *took, f"{each.ratio:.1f}x", speed, _share(each, where), ran)
            )
    head = ("network", "batch", "kernels", "window", "step", "MACs ratio", "speed-up [95%]", "part reached", "ran on")
    return markdown_table(head, "lrlrrrrrl", rows)


def clock_answer(found: Sequence[Clocked]) -> str:
    """The quiz's answer: which part of the ratio of the MACs the clock reaches at batch 1, on equal kernels."""
    each = found[0]
    if each.name != QUIZZED:
        return f"not measured: KIT_FAST=1 takes {each.name} instead of {QUIZZED}"
    part, said = _realised(each, ON_ONE_DNN), _doubt(each, ON_ONE_DNN)
    if part is None or said:
        return said or "not measured"
    low, high = (bisect(PARTS, x) for x in part[1:])
    return QUIZ[1][low] if low == high else f"not decided: {_share(each, ON_ONE_DNN)} leaves more than one answer open"


def _realised(each: Clocked, where: str) -> Ratio | None:
    row = row_of(each.comparison, "step" + where, "window" + where)
    return None if row is None or row.ratio is None else Ratio(*(x / each.ratio for x in row.ratio))


def _doubt(each: Clocked, where: str) -> str:
    said = decided(each.comparison, "step" + where, "window" + where)
    return "" if said in ("faster", "slower", "no difference found") else said


def _share(each: Clocked, where: str) -> str:
    part = _realised(each, where)
    if part is None or _doubt(each, where):
        return "not decided"
    return f"{part.estimate:.0%} [{part.low:.0%}, {part.high:.0%}]"


def clocked_told(found: Sequence[Clocked]) -> str:
    """Whether the clock reaches the ratio of the MACs, and what a larger batch and equal kernels change."""
    lines = []
    for each in found:
        for where, name in (("", "with the kernels that PyTorch chooses"), (ON_ONE_DNN, "both on oneDNN")):
            said = f"- {each.name}, batch {each.batch}, {name}: "
            if doubt := _doubt(each, where):
                lines.append(f"{said}**{doubt}**.")
            else:
                lines.append(f"{said}the speed-up is **{_share(each, where)}** of the ratio of the MACs.")
    return "\n".join(lines)


def reached_claims(found: Sequence[Clocked]) -> list[Claim]:
    """The published note that hardware does not reach the reduction of MACs, on equal kernels."""
    claims = []
    for each in found:
        text = (
            f"{each.name}, batch {each.batch}, on oneDNN: the speed-up of a step does not reach the reduction of MACs"
        )
        part = _realised(each, ON_ONE_DNN)
        if part is None or (said := _doubt(each, ON_ONE_DNN)):
            doubt = "not measured" if part is None else said.removeprefix("not decided: ")
            claims.append(Claim(text, "not decided", doubt))
            continue
        truth = "true" if part.high < 1 else "false" if part.low > 1 else "not decided"
        claims.append(Claim(text, truth, f"{_share(each, ON_ONE_DNN)} of {each.ratio:.1f}x"))  # type: ignore[arg-type]
    return claims
