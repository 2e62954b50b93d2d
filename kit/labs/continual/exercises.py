"""Checks of notebook 09's exercises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kit.labs.checks import check
from kit.models.init import keep_signal


@check
def check_reach(reach: Callable[[Sequence[tuple[int, int]]], tuple[int, int] | None]) -> str | None:
    """``reach([(kernel, padding), ...])``: receptive field and delay of convolutions in a row, strides of 1."""
    first: Any = reach([(3, 0)])
    if first is None:
        return "it gives None: is there a return?"
    if not isinstance(first, tuple | list) or len(first) != 2:
        return f"it gives {first!r}: return a tuple (receptive field, delay)."
    if tuple(first) == (2, 3):
        return "of one kernel of 3 it gives (2, 3): return the receptive field first, then the delay."
    cases = [
        ([(3, 0)], (3, 2), "one kernel of 3 sees 3 frames, and must wait for 2 before it has them."),
        ([(3, 0)] * 2, (5, 4), "a second kernel of 3 sees three outputs of the first, which overlap: 5 frames, not 6."),
    ]
    for layers, want, hint in cases:
        if tuple(reach(layers) or ()) != want:
            return hint
    field, delay = reach([(3, 1), (5, 1)]) or (None, None)
    if field != 7:
        return f"padding does not change the receptive field: kernels of 3 and 5 see 7 frames, and not {field}."
    if delay == 2:
        return "only the padding on one side, before the first frame, makes the delay shorter: count it once."
    return None if delay == 4 else "padding stands for frames before the first: each is one less to wait for."


@check
def check_partial_sums(partial: Callable[[nn.Conv3d, Tensor], Tensor | None]) -> str | None:
    """``partial(conv, frame)``: what one frame adds to each of the outputs it takes part in, ``(N, kt, O, H', W')``."""
    conv = keep_signal(nn.Conv3d(3, 4, 3, padding=(0, 1, 1), bias=False), 0).eval()
    frame = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = partial(conv, frame)
        want = nn.functional.conv3d(frame.unsqueeze(2), conv.weight, padding=(2, 1, 1)).flip(2).transpose(1, 2)
    if got is None:
        return "it gives None: is there a return?"
    if not isinstance(got, Tensor):
        return f"it gives {type(got).__name__}: return a tensor."
    shape, wanted = tuple(got.shape), tuple(want.shape)
    if shape == (2, 12, 5, 5):
        return f"the result is {shape}: split its channels with unflatten(1, (kt, -1)), to {wanted}."
    if shape != wanted:
        about = "(N, kt, O, H, W)" + (": use the padding of the last two dimensions" if shape[-2:] != (5, 5) else "")
        return f"the result is {shape} and should be {wanted}, {about}."
    if torch.allclose(got, want, atol=1e-5):
        return None
    if torch.allclose(got.flip(1), want, atol=1e-5):
        return "the right sums in the wrong order: part k belongs to conv.weight[:, :, k]."
    mixed = nn.functional.conv2d(frame, conv.weight.transpose(1, 2).flatten(0, 1), padding=1)
    if torch.allclose(got, mixed.view_as(want), atol=1e-5):
        return "filters and parts are mixed up: put kt before O with permute(2, 0, 1, 3, 4) before you flatten."
    return "the sums differ: part k is the 2-D convolution of the frame with conv.weight[:, :, k]."
