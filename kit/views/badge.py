"""Whether a trace was recorded or simulated, in one line of text, by its own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kit.machine.about import About
from kit.scheduling.gpu import Gpu
from kit.text import counted, time_text
from kit.trace import Trace


def badge(trace: Trace) -> str:
    """ "Simulated, not measured: ..." with the numbers of the GPU, or "Recorded: ..." with date and machine.

    Empty for a trace that says nothing of its origin, and for several traces of different origins in one.
    """
    about = trace.about
    if about.get("simulated"):
        return f"Simulated, not measured: {_numbers(about.get('gpu', {}))}."
    known = {each.name for each in fields(About)} & about.keys()
    said = str(About(**{name: about[name] for name in known}))
    return f"Recorded: {said}." if said else ""


def _numbers(gpu: Mapping[str, Any]) -> str:
    """What a picture depends on most, and all else that is not as usual."""
    shown = {"sms", "launch_ns", "eager_ns"}
    usual = {each.name: each.default for each in Gpu.parameters()}
    others = [
        f"{name} {time_text(value) if name.endswith('_ns') else value}"
        for name, value in gpu.items()
        if name not in shown and value != usual.get(name)
    ]
    if not shown <= gpu.keys():
        return "the file does not say with which numbers"
    eager = f"{time_text(gpu['launch_ns'])} a launch, {time_text(gpu['eager_ns'])} between two of eager PyTorch"
    return ", ".join([f"a GPU of {counted(gpu['sms'], 'SM')}", eager, *others])
