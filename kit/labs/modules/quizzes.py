"""Notebook 12's quizzes on modules, states and converters, and the answers that the experiments give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from kit.labs import conclusions
from kit.labs.modules import published, transformers
from kit.labs.modules.converters import Taken
from kit.labs.modules.gallery import Row
from kit.labs.modules.state import Kept
from kit.models.continual import stepper
from kit.views.quiz import Quiz

QUIZZES = {
    "modes": (
        "A module of the library computes a clip by forward, by forward_steps and by forward_step. In how many of the "
        "settings of the gallery do all of them agree, and does the module tell its delay rightly?",
        ["in all of them", "in more than half", "in less than half"],
    ),
    "outputs": (
        "A convolution over time with kernel 3, padding 1, stride 1, and a clip of 16 frames. How many outputs do 16 "
        "steps give?",
        ["14", "15", "16"],
    ),
    "state": (
        "In the middle of a clip, the get_state() of a Sequential with two convolutions gives ...",
        ["the states of both", "the state of the first one", "None"],
    ),
    "converter": (
        "co.continual(nn.MaxPool3d(3, stride=1, padding=1)) makes a module whose steps give ...",
        ["the outputs of torch's module", "other outputs, without a warning", "an error: it refuses to convert"],
    ),
    "blocks": transformers.QUIZ,
    "clock": published.QUIZ,
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def modes_answer(rows: Sequence[Row]) -> str:
    """In how many of the modules' settings all modes agree."""
    modules = [row for row in rows if not row.said]
    right = sum(row.verdict == "equal" for row in modules)
    everything, more, less = QUIZZES["modes"][1]
    return everything if right == len(modules) else more if 2 * right > len(modules) else less


def outputs_answer() -> str:
    """How many outputs the steps of that convolution give, counted."""
    net, state, count = stepper(nn.Conv3d(1, 1, 3, padding=1)), None, 0
    for _ in range(16):
        out, state = net(torch.randn(1, 1, 4, 4), state)
        count += out is not None
    return str(count)


def state_answer(found: Mapping[str, Kept]) -> str:
    """What the ``get_state()`` of a Sequential gave; a state of any kind is told as that of both."""
    options = QUIZZES["state"][1]
    return options[0] if found["Sequential"].gives else options[2]


def converter_answer(found: Mapping[str, tuple[Taken, Taken]]) -> str:
    """What the library's converter made of the padded max pool."""
    verdict = found["MaxPool3d, padding 1"][0].verdict
    return dict(zip(("equal", "wrong", "refused"), QUIZZES["converter"][1], strict=True))[verdict]
