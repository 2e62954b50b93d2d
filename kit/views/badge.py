"""Whether a trace was recorded or simulated, in one line of text, by its own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kit.errors import KitError
from kit.machine.about import About
from kit.scheduling.gpu import Gpu
from kit.scheduling.links import Link
from kit.text import counted, time_text
from kit.trace import Trace


def badge(trace: Trace) -> str:
    """``Simulated, not measured: ...`` with the numbers of the GPU or link, or ``Recorded: ...`` with date and machine.

    Empty for a trace that says nothing of its origin. For stacked traces of several origins, one line for each.
    """
    return _of(trace.about)


def _of(about: Any) -> str:
    if not isinstance(about, Mapping):  # of a file that somebody else wrote
        return ""
    if isinstance(traces := about.get("traces"), Mapping) and traces:
        said = {name: _of(each) or "No origin." for name, each in traces.items()}
        alike = len({*said.values()}) == 1
        return next(iter(said.values())) if alike else "\n".join(f"{name}: {text}" for name, text in said.items())
    if about.get("simulated") and isinstance(network := about.get("network"), Mapping):
        return f"Simulated, not measured: {_link(network)}. All else: {_origin(about) or 'no origin'}."
    if about.get("simulated"):
        return f"Simulated, not measured: {_numbers(about.get('gpu', {}))}."
    origin = _origin(about)
    hosts = f" {about['hosts']}." if isinstance(about.get("hosts"), str) else ""
    return f"Recorded: {origin}.{hosts}" if origin else ""


def _origin(about: Mapping[Any, Any]) -> str:
    usual = {each.name: Mapping if each.name in ("versions", "machine") else str for each in fields(About)}
    return str(About(**{name: about[name] for name, kind in usual.items() if isinstance(about.get(name), kind)}))


def _link(network: Mapping[Any, Any]) -> str:
    """A network that was declared: its hand-overs slept as long as this link takes."""
    try:
        return f"a network of {Link(**network)}, slept at each hand-over between threads"
    except (TypeError, KitError):
        return "a network, and the file does not say with which numbers"


def _numbers(gpu: Any) -> str:
    """What a picture depends on most, and all else that is not as usual."""
    shown = {"sms", "launch_ns", "eager_ns"}
    try:
        Gpu(**gpu)
        known = shown <= gpu.keys()
    except (TypeError, KitError):
        known = False
    if not known:
        return "the file does not say with which numbers"
    usual = {each.name: each.default for each in Gpu.parameters()}
    others = [
        f"{name} {time_text(value) if name.endswith('_ns') else value}"
        for name, value in gpu.items()
        if name not in shown and value != usual.get(name)
    ]
    eager = f"{time_text(gpu['launch_ns'])} a launch, {time_text(gpu['eager_ns'])} between two of eager PyTorch"
    return ", ".join([f"a GPU of {counted(gpu['sms'], 'SM')}", eager, *others])
