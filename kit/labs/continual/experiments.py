"""The networks and clips of notebook 09 whose making teaches little, and what some short experiments say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kit import models
from kit.equality import Equality, compare_outputs
from kit.labs.speed import size
from kit.models.continual import Stepper, stepper
from kit.regions import Branches


def block() -> Branches:
    """The 3-D Inception module whose steps are taken apart: of I3D, or under ``KIT_FAST=1`` a smaller one."""
    return models.inception3d_block() if size(1, 0) else models.inception3d_block(64, (24, 32, 48, 8, 12, 12))


def clip_of_noise() -> Tensor:
    """A window of 16 frames for :func:`block`, ``(1, C, 16, H, W)``."""
    return torch.randn(1, size(192, 64), 16, size(28, 14), size(28, 14)).relu()


def two_blocks() -> nn.Sequential:
    """Two Inception modules, each of which pads time: ``(N, 16, T, H, W) -> (N, 36, T, H, W)``."""
    widths = (8, 8, 12, 4, 8, 8)
    return nn.Sequential(models.inception3d_block(16, widths), models.inception3d_block(36, widths)).eval()


def padding_told(model: nn.Module, clip: Tensor, window: int) -> str:
    """Which outputs of a window differ from those of the whole clip, beside the step's.

    Args:
        model: over clips, with stride 1 and padding in time.
        clip: ``(N, C, T, H, W)``, of at least two windows; the window ends at its frame ``2 * window - 1``.
    """
    net = stepper(model)
    with torch.inference_mode():
        whole, (steps, _) = model(clip), net.over(clip)
        short = model(clip[:, :, window : 2 * window])
        part = whole[:, :, window : 2 * window]
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(short.unbind(2), part.unbind(2), strict=True)]
    return (
        f"Outputs of the steps against the whole clip: {compare_outputs(whole[:, :, : steps.shape[2]], steps)}. "
        f"Outputs of a window of {window} frames against the whole clip, relative error: "
        f"{', '.join(f'{error:.0%}' for error in errors)}. The first and the last {net.reach.padding} outputs of the "
        "window depend on padding: they are the outputs that may differ."
    )


def network_told(net: Stepper, same: Equality) -> str:
    """How far a network looks in time, and whether its steps give the outputs of the whole clip.

    Args:
        same: the steps' outputs against those of the whole clip.
    """
    return (
        f"Receptive field {net.reach.receptive_field} frames, delay {net.delay}: the first {net.delay} frames give no "
        f"output, and each later frame gives one. The same outputs as on the whole clip: {same}."
    )


def agreement_told(found: Mapping[str, Equality]) -> str:
    """How many modules give by steps what they give on the whole clip: plain text, and no others are named."""
    return f"{sum(each.equal for each in found.values())} of {len(found)} give by steps what they give on the clip"


def turns_told(same: Equality) -> str:
    """Whether two clips in turns disturb each other.

    Args:
        same: the last output of the second clip against PyTorch's.
    """
    return f"Two clips in turns; the last output of the second, against PyTorch: {same}."


def encoder_told(encoder: nn.TransformerEncoder, tokens: Tensor, window: int) -> str:
    """What the library's encoder gives step by step; ``tokens`` and ``window`` as of :func:`encoder_by_steps`."""
    delay, same = encoder_by_steps(encoder, tokens, window)
    return f"The first {delay} steps give no output. The others, against PyTorch on windows of {window} frames: {same}."


def encoder_by_steps(encoder: nn.TransformerEncoder, tokens: Tensor, window: int) -> tuple[int, Equality]:
    """The library's encoder with PyTorch's weights, step by step: its delay, and whether the outputs are PyTorch's.

    Args:
        tokens: ``(1, C, T)``.
        window: tokens that a prediction is made of.
    """
    import continual as co

    build: Any = co.TransformerEncoder.build_from
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the library reads the weights in a way that PyTorch will drop
        net = build(encoder, sequence_len=window).eval()
    length = tokens.shape[2]
    with torch.inference_mode():
        outs = [net.forward_step(tokens[:, :, t]) for t in range(length)]
        ends = range(window, length + 1)
        windows = [encoder(tokens[:, :, end - window : end].transpose(1, 2))[:, -1] for end in ends]
    return net.delay, compare_outputs(windows, [out.reshape(1, -1) for out in outs[window - 1 :]])


def i3d_told() -> str:
    """How far a stream of I3D looks in time, and what follows for short windows."""
    i3d: Any = models.two_stream_i3d(classes=5, width=0.125)
    stages = list(i3d.streams.branches["rgb"].children())
    end = next(i for i, stage in enumerate(stages) if isinstance(stage, nn.AdaptiveAvgPool3d))
    reach = stepper(nn.Sequential(*stages[:end]).eval()).reach
    return (
        f"An output of an I3D stream, up to its last block, depends on **{reach.receptive_field} frames**, and comes "
        f"every {reach.stride} frames; up to {reach.padding} of these frames are padding before the clip. In a window "
        "of 16 or 64 frames *every* output depends on padding. So no output of such a window equals a step's output, "
        "and the accuracy of the step must be measured anew: it is another network than the one that was trained on "
        "short clips."
    )
