"""A module's containers and layers, drawn from the module itself."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from torch import nn

from kit.reprs import one_line
from kit.views.palette import NEUTRAL


@one_line
@dataclass(frozen=True)
class Diagram:
    """A module's containers and layers as nested boxes: chains from left to right, parallel streams in columns."""

    module: nn.Module

    def _repr_html_(self) -> str:
        return f"<div style='overflow-x:auto;font-size:12px'>{_box(self.module)}</div>"


def _box(module: Any) -> str:
    name, children = type(module).__name__, list(module.children())
    delay = f" <i>delay {module.delay}</i>" if getattr(module, "delay", 0) else ""
    style = f"border:1px solid {NEUTRAL};border-radius:4px;padding:3px 6px;margin:2px;display:inline-block"
    if not children:
        kernel = getattr(module, "kernel_size", "")
        size = "x".join(map(str, kernel)) if isinstance(kernel, tuple) else ""
        return f"<div style='{style}'>{html.escape(name)} {size}{delay}</div>"
    parallel = name in ("Parallel", "BroadcastReduce", "Conditional")
    inside = f"display:flex;{'flex-direction:column' if parallel else 'align-items:center'}"
    inner = ("" if parallel else "&rarr;").join(map(_box, children))
    return f"<div style='{style}'><b>{html.escape(name)}</b>{delay}<div style='{inside}'>{inner}</div></div>"
