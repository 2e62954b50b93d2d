"""Each module of the library in ``forward``, ``forward_steps`` and ``forward_step`` on the same clip."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from kit.equality import Equality, compare_outputs
from kit.labs.continual.steps import influence
from kit.labs.modules.specimens import Specimen
from kit.reprs import one_line

FRAMES, SIDE = 9, 5


@one_line
@dataclass(frozen=True)
class Agreement:
    """Outputs against those of ``forward``."""

    equality: Equality
    wrong: tuple[int, ...] = ()  # which outputs differ, counted from 0
    count: int = 1  # outputs that were compared

    def __str__(self) -> str:
        if not self.wrong:
            return str(self.equality)
        which = "all" if len(self.wrong) == self.count else f"{_ranges(self.wrong)} of {self.count}"
        return f"off by {self.equality.max_abs_error:.2g} (outputs: {which})"


Answer = Agreement | str | None  # equal or not; why there is nothing to compare; nothing was to be compared


@one_line
@dataclass(frozen=True)
class Row:
    """What was found of one name of the library, in one setting."""

    name: str
    case: str
    kind: str
    as_torch: Answer = None  # forward against torch's module
    steps: Answer = None  # forward_steps against forward
    padded: Answer = None  # forward_steps(pad_end=True) against forward
    step: Answer = None  # forward_step against forward
    outputs: tuple[bool, ...] = ()  # frame by frame: whether forward_step gave one, and not None
    delay: tuple[int, int | None] | None = None  # as the module says, and as measured
    field: tuple[int, int | None] | None = None  # receptive field: as the module says, and frames back that count
    state: int = 0  # bytes that it holds after the last frame
    gives_state: bool | None = None  # get_state() gives something
    said: str = ""  # of what is no module: what was tried
    why: str = ""  # the reason of a difference, in the library's source

    @property
    def faults(self) -> list[str]:
        """What the module does otherwise than it says; nothing where all modes agree."""
        if self.said:
            return [self.step] if isinstance(self.step, str) else []
        modes = {
            "forward is not torch's": self.as_torch,
            "forward_steps": self.steps,
            "pad_end": self.padded,
            "forward_step": self.step,
        }
        found = []
        for mode, answer in modes.items():
            if isinstance(answer, str) or (answer is not None and not answer.equality.equal):
                found.append(f"{mode}: {answer}")
        for what, pair in (("delay", self.delay), ("receptive field", self.field)):
            if pair is not None and pair[1] is not None and pair[0] != pair[1]:
                found.append(f"says {what} {pair[0]}, has {pair[1]}")
        return found

    @property
    def verdict(self) -> str:
        """``equal``, ``works`` (what is no module), ``differs``, or ``raises``."""
        answers = (self.as_torch, self.steps, self.padded, self.step)
        if any(isinstance(each, str) and each.startswith("raises") for each in answers):
            return "raises"
        if self.faults:
            return "differs"
        return "works" if self.said else "equal"


def gallery(each: Iterable[Specimen]) -> list[Row]:
    """Run each of these on a clip of noise from a seed; the global random state stays as it is."""
    with in_peace():
        return [examined(specimen) for specimen in each]


@contextmanager
def in_peace() -> Iterator[None]:
    """In this block: no gradients, no warnings, which the library also logs, and random numbers of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        logging.disable(before)


def examined(specimen: Specimen) -> Row:
    """One module in every mode; an exception is an answer too."""
    torch.manual_seed(0)
    about = (specimen.name, specimen.case, specimen.kind)
    clip = torch.randn(2, 4, FRAMES, *[SIDE] * (specimen.axes - 1))
    clip -= 1  # most of it is below zero: a max pool that pads with zeros is found out
    given = [clip, clip.flip(1)][: specimen.streams] if specimen.streams else clip
    try:
        module = specimen.make().eval()
    except Exception as error:
        return Row(*about, step=_raised(error, "when it is made: "), why=specimen.why)

    def fresh(call: Callable[[], Any]) -> Any:
        cleaned(module)
        return call()

    as_torch: Answer = None
    if specimen.torch is not None:
        twin, part = specimen.torch(module), at(given, slice(specimen.window or None))
        as_torch = tried(lambda: Agreement(compare_outputs(twin(part), fresh(lambda: _output(module.forward(part))))))
    reference = tried(lambda: fresh(lambda: references(specimen, module, given)))
    outs = tried(lambda: fresh(lambda: [module.forward_step(at(given, t)) for t in range(FRAMES)]))
    state, gives = held(module), tried(lambda: module.get_state() is not None) is True
    if isinstance(outs, str):
        return Row(*about, as_torch=as_torch, step=outs, gives_state=gives, why=specimen.why)
    shown = tuple(all(isinstance(leaf, Tensor) for leaf in tree_leaves(out) or [None]) for out in outs)

    def against(frames: Callable[[], list[Any]], all_in: bool = False) -> Answer:
        answer: Answer = reference
        return answer if isinstance(answer, str) else tried(lambda: agreement(reference, fresh(frames), all_in))

    first = shown.index(True) if any(shown) else None
    return Row(
        *about,
        as_torch,
        steps=against(lambda: split(module.forward_steps(given))),
        padded=against(lambda: split(module.forward_steps(given, pad_end=True)), all_in=True),
        step=against(lambda: [out for out, gave in zip(outs, shown, strict=True) if gave]),
        outputs=shown,
        delay=(int(module.delay), first),
        field=(int(module.receptive_field), seen(module, specimen, clip)),
        state=state,
        gives_state=gives,
        why=specimen.why,
    )


def references(specimen: Specimen, module: Any, given: Any) -> list[Any]:
    """The output that is due at each step, by ``forward``: on the clip, or on each window of it."""
    if not specimen.window:
        return split(_output(module.forward(given)))
    ends = range(specimen.window, FRAMES + 1)
    outs = [_output(module.forward(at(given, slice(end - specimen.window, end)))) for end in ends]
    return outs if specimen.every else [out[:, :, -1] if out.ndim > 2 else out for out in outs]


def seen(module: Any, specimen: Specimen, clip: Tensor) -> int | None:
    """The most frames back from a step's own that its output depends on; None where it depends on none.

    The module counts in double precision from now on: what is subtracted again must leave no rounding behind.
    """
    module.double()

    def make() -> Callable[[Tensor], Tensor | None]:
        cleaned(module)

        def step(frame: Tensor) -> Tensor | None:
            given = [frame, frame.flip(1)][: specimen.streams] if specimen.streams else frame
            leaves = tree_leaves(module.forward_step(given))
            if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
                return None
            return torch.cat([leaf.flatten(1) for leaf in leaves], 1)

        return step

    found = influence(make, clip.double())
    spans = [t + 1 - int(frames[0]) for t, row in enumerate(found) if len(frames := np.flatnonzero(row == 1))]
    return max(spans, default=None)


def held(module: Any) -> int:
    """Bytes of state: buffers that no checkpoint saves, and the hidden state of a recurrent module."""
    tensors = []
    for each in module.modules():
        tensors += [each._buffers[name] for name in each._non_persistent_buffers_set]
        tensors += [vars(each).get(name) for name in ("_hidden_state", "_cell_state")]
    return sum(x.nbytes for x in tree_leaves(tensors) if isinstance(x, Tensor))


def at(value: Any, place: Any) -> Any:
    """A frame, or a part, of each clip in nested lists."""
    return tree_map(lambda x: x[:, :, place], value)


def split(value: Any) -> list[Any]:
    """The outputs of a clip, one after the other; none where there is no output."""
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return [at(value, t) for t in range(leaves[0].shape[2])] if leaves else []


def cleaned(module: Any) -> None:
    """Every module in it at the start of a clip; those of torch that it holds have no state."""
    for each in module.modules():
        if hasattr(each, "clean_state"):
            each.clean_state()


def _output(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value  # recurrent modules give their hidden state too


def agreement(want: list[Any], got: list[Any], all_in: bool = False) -> Answer:
    """Outputs of steps against the first of ``forward``'s, or with ``all_in`` against all of them."""
    if len(got) > len(want) or (all_in and len(got) < len(want)):
        return f"{len(got)} outputs, forward has {len(want)}"
    if not got:
        return "no output within the clip"
    wrong = [i for i, pair in enumerate(zip(want, got, strict=False)) if not compare_outputs(*pair).equal]
    whole = compare_outputs(want[: len(got)], got)
    return Agreement(whole, tuple(wrong) if not whole.equal else (), len(got))


def _ranges(numbers: tuple[int, ...]) -> str:
    """``0, 1, 2, 5`` as ``0-2, 5``."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def tried(call: Callable[[], Any]) -> Any:
    """What a call gives, or in words what it raises."""
    try:
        return call()
    except Exception as error:
        return _raised(error)


def _raised(error: Exception, when: str = "") -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"raises {when}{type(error).__name__}: {text if len(text) < 120 else text[:117] + '...'}"
