"""The claims of notebook 12 on modules, states and converters, and what this machine said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kit.labs.conclusions import Claim, claim_faster
from kit.labs.modules.converters import Taken
from kit.labs.modules.gallery import Agreement, Row
from kit.labs.modules.state import Kept
from kit.measuring.comparison import Comparison
from kit.text import counted


def claims(
    rows: Sequence[Row],
    found: Mapping[str, Kept],
    taken: Mapping[str, tuple[Taken, Taken]],
    turns: Mapping[str, Mapping[str, int]],
    steps: Comparison,
) -> list[Claim]:
    """What the notebook's first sections claim.

    Args:
        rows: of the gallery.
        found: of the states.
        taken: by ``co.continual`` and by the kit's ``stepper``.
        turns: how the states of two clips were kept -> clip -> outputs that were wrong.
        steps: from :func:`kit.workloads.step_parts.step_times`.
    """
    return [
        _all("On a clip, forward gives the outputs of PyTorch's module", rows, "as_torch"),
        _all("Frame by frame, each module gives the outputs of forward", rows, "step"),
        _all("forward_steps with pad_end=True gives all outputs of forward", rows, "padded"),
        _told_rightly(rows),
        _states(found),
        *(_converter(name, [pair[i] for pair in taken.values()]) for i, name in enumerate(("co.continual", "stepper"))),
        *(_turns(how, wrong) for how, wrong in turns.items()),
        claim_faster(
            "Both on oneDNN, the kit's step is faster than the library's", steps, "kit_onednn", "library_onednn"
        ),
    ]


def _all(text: str, rows: Iterable[Row], mode: str) -> Claim:
    answers = {row: getattr(row, mode) for row in rows if not row.said and getattr(row, mode) is not None}
    wrong = [row.name for row, each in answers.items() if not (isinstance(each, Agreement) and each.equality.equal)]
    by = f"{len(answers) - len(wrong)} of {len(answers)} settings"
    by += f"; not in all settings of {', '.join(dict.fromkeys(wrong))}" if wrong else ""
    return Claim(text, "false" if wrong else "true" if answers else "not decided", by)


def _told_rightly(rows: Iterable[Row]) -> Claim:
    told = [row for row in rows if row.delay is not None and row.delay[1] is not None]
    wrong = list(dict.fromkeys(row.name for row in told if row.delay and row.delay[0] != row.delay[1]))
    by = f"{', '.join(wrong)} wait for another number of frames" if wrong else f"{len(told)} settings"
    return Claim("Each module tells its delay rightly", "false" if wrong else "true" if told else "not decided", by)


def _states(found: Mapping[str, Kept]) -> Claim:
    wrong = [name for name, each in found.items() if not each.restored]
    by = f"{len(found) - len(wrong)} of {len(found)} modules" + (f"; not {', '.join(wrong)}" if wrong else "")
    said = "get_state() and set_state() keep the place in a clip, of a container too"
    return Claim(said, "false" if wrong else "true" if found else "not decided", by)


def _converter(name: str, taken: Sequence[Taken]) -> Claim:
    accepted = [each for each in taken if each.verdict != "refused"]
    equal = sum(each.verdict == "equal" for each in accepted)
    by = f"{equal} of the {len(accepted)} networks that it took, of {len(taken)}"
    truth = "not decided" if not accepted else "true" if equal == len(accepted) else "false"
    return Claim(f"What {name} takes gives the outputs of PyTorch's network", truth, by)  # type: ignore[arg-type]


def _turns(how: str, wrong: Mapping[str, int]) -> Claim:
    by = ", ".join(f"{counted(count, 'wrong step')} of clip {name}" for name, count in wrong.items())
    said = f"Two clips in turns, {how}: each clip gets its own outputs"
    return Claim(said, "false" if any(wrong.values()) else "true" if wrong else "not decided", by)
