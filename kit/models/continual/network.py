"""A two-stream network in space and time, so shallow that a step and a clip can mean the same."""

from __future__ import annotations

from torch import nn

from kit.models.continual.steps import Crop
from kit.models.inception import conv_bn_relu
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Mean


def shallow_two_stream_3d(classes: int = 10, *, width: int = 32, window: int = 8, seed: int = 0) -> Branches:
    """Two shallow 3-D Inception networks, on RGB and on optical flow, whose scores are averaged; in eval mode.

    RGB ``(N, 3, T, 64, 64)`` and flow ``(N, 2, T, 64, 64)`` to ``(N, classes, T - 7 - window, 1, 1)``: scores for
    every window of ``8 + window`` frames, with the defaults 16. Time is neither padded nor strided, so that what a
    window gives is the same wherever it lies in a clip.

    >>> from kit.models.continual import shallow_two_stream_3d
    >>> network = shallow_two_stream_3d(width=8, window=2)
    >>> network(torch.rand(1, 3, 10, 64, 64), torch.rand(1, 2, 10, 64, 64)).shape  # one window of 10 frames
    torch.Size([1, 10, 1, 1, 1])

    Args:
        width: channels of the first convolution.
        window: frames whose features are averaged, at least 1.
    """

    def stream(in_channels: int) -> nn.Sequential:
        w = width
        return nn.Sequential(
            conv_bn_relu(in_channels, w, (3, 7, 7), conv=nn.Conv3d, stride=(1, 2, 2), padding=(0, 3, 3)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),  # (N, w, T - 2, 16, 16)
            conv_bn_relu(w, 2 * w, 3, conv=nn.Conv3d, padding=(0, 1, 1)),  # (N, 2w, T - 4, 16, 16)
            _block(2 * w, 2 * w),  # (N, 4w, T - 6, 16, 16)
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            _block(4 * w, 4 * w),  # (N, 8w, T - 8, 8, 8)
            nn.AvgPool3d((window, 8, 8), stride=1),  # (N, 8w, T - 7 - window, 1, 1)
            nn.Conv3d(8 * w, classes, 1),
        )

    return keep_signal(Branches({"rgb": stream(3), "flow": stream(2)}, Mean()), seed).eval()


def _block(in_channels: int, w: int) -> Branches:
    """The 3-D Inception module without padding in time: ``(N, in_channels, T, H, W) -> (N, 2w, T - 2, H, W)``."""

    def unit(channels: int, out_channels: int, kernel: int) -> nn.Sequential:
        return conv_bn_relu(channels, out_channels, kernel, conv=nn.Conv3d, padding=(0, kernel // 2, kernel // 2))

    branches = {
        "1x1": nn.Sequential(Crop(1), unit(in_channels, w // 2, 1)),
        "3x3": nn.Sequential(unit(in_channels, 3 * w // 4, 1), unit(3 * w // 4, w, 3)),
        "5x5": nn.Sequential(unit(in_channels, w // 8, 1), unit(w // 8, w // 4, 3)),
        "pool": nn.Sequential(nn.MaxPool3d(3, 1, (0, 1, 1)), unit(in_channels, w // 4, 1)),
    }
    return Branches(branches, Concat(1))
