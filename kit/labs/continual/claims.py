"""The card of notebook 09: what a library of continual inference networks claims, and what this machine said."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from kit.equality import Equality
from kit.labs.conclusions import Claim, card, decided, row_of, told, truth
from kit.labs.continual.quizzes import percent, share_doubt
from kit.labs.continual.sentences import kernels_in_words
from kit.workloads.continual import WindowVersusStep
from kit.workloads.step_parts import StepParts

NEAR = 0.1  # a MACs ratio within 10% of the window's frames is "about" that
DISTURBED, RESTORED, CONTAINER = "another clip disturbs", "a copy of the state restores", "a container gives a state"


def states(*, disturbed: bool, restored: bool, container: Any) -> dict[str, bool]:
    """What was seen of the library's states.

    Args:
        disturbed: a frame of another clip in between changed the output.
        restored: with a copy of the state put back, the output was the expected one.
        container: what ``get_state`` of a container gave.
    """
    return {DISTURBED: disturbed, RESTORED: restored, CONTAINER: container is not None}


def conclusion(
    as_torch: Mapping[str, Equality],
    by_steps: Mapping[str, Equality],
    seen: Mapping[str, bool],
    parts: StepParts,
    against: Mapping[str, tuple[int, WindowVersusStep]],
) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided.

    Args:
        as_torch: module of the library -> its output on a clip against PyTorch's.
        by_steps: module -> its steps against the whole clip.
        seen: from :func:`states`.
        parts: of a step by the library and by the kit.
        against: network -> the frames of its window, and what was measured.
    """
    claims = [
        _equal("With the weights of PyTorch, the library's modules give the outputs of PyTorch", as_torch),
        _equal("Frame by frame, each gives the outputs that it gives on the whole clip", by_steps),
        _macs(against),
        *(_reached(name, each) for name, (_, each) in against.items()),
        _choice(parts),
        _zeros(parts),
        Claim(
            "Two clips through one module of the library need a state each",
            "true" if seen[DISTURBED] and seen[RESTORED] else "false",
            f"{'a' if seen[DISTURBED] else 'no'} frame of the other clip changed the output; a copy of the state, put "
            f"back, {'restored' if seen[RESTORED] else 'did not restore'} it",
        ),
        Claim(
            "The library's containers return their state",
            "true" if seen[CONTAINER] else "false",
            f"Sequential.get_state() of version {version('continual-inference')} "
            f"{'gave a state' if seen[CONTAINER] else 'gave None'}",
        ),
    ]
    return card(claims)


def _equal(text: str, found: Mapping[str, Equality]) -> Claim:
    wrong = [name for name, same in found.items() if not same.equal]
    by = f"{len(found) - len(wrong)} of {len(found)} modules" + (f"; not {', '.join(wrong)}" if wrong else "")
    return Claim(text, "not decided" if not found else "false" if wrong else "true", by)


def _macs(against: Mapping[str, tuple[int, WindowVersusStep]]) -> Claim:
    near = [abs(each.counted / frames - 1) <= NEAR for frames, each in against.values()]
    by = "; ".join(f"{name}: {each.counted:.1f}x with {frames} frames" for name, (frames, each) in against.items())
    said = "A step needs about T times fewer MACs than a window of T frames, in each of these networks"
    return Claim(said, "true" if all(near) else "false", f"counted, {by}")


def _reached(name: str, found: WindowVersusStep) -> Claim:
    text = f"{name}: the speed-up of a step does not reach its MACs ratio"
    ran = " and ".join(f"{side} on {kernels_in_words(kernels)}" for side, kernels in found.kernels.items())
    if said := share_doubt(found):
        return Claim(text, "not decided", f"{said.removeprefix('not decided: ')}; {ran}")
    verdict = found.realised.verdict
    by = f"{found.measured} of {found.counted:.1f}x is {percent(found.realised)}; {ran}"
    return Claim(text, {"slower": "true", "faster": "false"}.get(verdict, "not decided"), by)  # type: ignore[arg-type]


def _choice(parts: StepParts) -> Claim:
    text = "The kernels that PyTorch chooses make the library's step slower than oneDNN would"
    ran = kernels_in_words(parts.kernels["library"])
    said = told(parts.comparison, "library_onednn", faster="true", slower="false", same="false")
    return Claim(text, truth(said, "true"), f"{_by(parts, 'library_onednn', said)}; PyTorch chose {ran}")


def _zeros(parts: StepParts) -> Claim:
    text = "On oneDNN, the zeros around each frame make the library's step slower"
    said = told(parts.comparison, "library_without_zeros", faster="true", slower="false", same="false")
    return Claim(text, truth(said, "true"), _by(parts, "library_without_zeros", said))


def _by(parts: StepParts, name: str, said: str) -> str:
    row = row_of(parts.comparison, name)
    if row is None or row.ratio is None or row.verdict == "not decided":
        return said.removeprefix("not decided: ")
    return f"{row.ratio}, {decided(parts.comparison, name)}"
