"""Checks of notebook 12's exercises on states and pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from kit.equality import compare_outputs
from kit.labs.checks import check
from kit.labs.modules.gallery import cleaned
from kit.labs.modules.specimens import C


@check
def check_states(states: Callable[[Any], Any]) -> str | None:
    """``states(net)``: copies of the states of the modules of a ``co.Sequential``, None where a module has none."""
    import continual as co

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = co.Sequential(co.Conv3d(C, C, 3), nn.ReLU(), co.Conv3d(C, C, 3)).eval()
        clip, other = torch.randn(2, 1, C, 8, 6, 6)
        expected = _continued(net, clip, 6)
        _continued(net, clip, 5)
        found = states(net)
        if found is None:
            return "it gives None: is there a return? A Sequential's own get_state() gives None too."
        if not isinstance(found, list | tuple) or len(found) != len(net):
            return f"return a list of {len(net)} states, one for each module of the Sequential."
        if found[0] is None or found[2] is None:
            return "a convolution in the middle of a clip has a state: ask each module for its own get_state()."
        own = {x.data_ptr() for each in net for x in tree_leaves(each.get_state()) if x is not None}
        if own & {x.data_ptr() for x in tree_leaves(found) if isinstance(x, torch.Tensor)}:
            return "these are the module's own tensors, and the next step writes into them: clone() each."
        for t in range(4):
            net.forward_step(other[:, :, t])
        for each, state in zip(net, found, strict=True):
            if state is not None:
                each.set_state(state)
        got = net.forward_step(clip[:, :, 6])
    return None if compare_outputs(expected, got).equal else "put back, these states do not give the expected output."


def _continued(net: Any, clip: torch.Tensor, last: int) -> torch.Tensor:
    """The step of a clip at frame number ``last``, after those before it."""
    cleaned(net)
    outs = [net.forward_step(clip[:, :, t]) for t in range(last + 1)]
    out: torch.Tensor = outs[-1]
    return out


@check
def check_pool(pool: Callable[[], Any]) -> str | None:
    """``pool()``: a ``co.MaxPool3d`` with kernel 3, stride 1 and padding 1 whose steps give torch's outputs."""
    import continual as co

    found = pool()
    if found is None:
        return "it gives None: is there a return?"
    if not isinstance(found, co.MaxPool3d):
        return f"return a co.MaxPool3d, and not {type(found).__name__}."
    if (found.kernel_size, found.stride, found.padding) != ((3, 3, 3), (1, 1, 1), (1, 1, 1)):
        return "keep kernel 3, stride 1 and padding 1: the pool is to give what torch's gives with these."
    clip = torch.randn(1, C, 6, 6, 6, generator=torch.Generator().manual_seed(0)) - 3
    want, got = nn.MaxPool3d(3, 1, 1)(clip), found.forward_steps(clip, pad_end=True)
    if compare_outputs(want, got).equal:
        return None
    return (
        "on a clip that is below zero everywhere, the first output differs: what does the pool put in the place of "
        "frames before the first? Filter the gallery by 'MaxPool3d' and compare the settings."
    )
