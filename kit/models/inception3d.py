"""Inception in space and time: the 3-D module, and the two-stream I3D (Carreira & Zisserman, 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from kit.errors import ShapeError
from kit.models.inception import Inception
from kit.models.inception2d import V1_BLOCKS, inception_v1, inception_v1_block
from kit.models.init import keep_signal
from kit.models.weights import put_weights
from kit.regions import Branches, Mean


def inception3d_block(
    in_channels: int = 192, widths: tuple[int, int, int, int, int, int] = V1_BLOCKS["3a"], *, seed: int = 0
) -> Branches:
    """The 3-D Inception module: 1x1x1; 1x1x1 -> 3x3x3; 1x1x1 -> 3x3x3; 3x3x3 max pool -> 1x1x1.

    ``(N, in_channels, T, H, W) -> (N, C, T, H, W)``; with the defaults ``(N, 192, T, 28, 28) -> (N, 256, T, 28, 28)``.
    Zeros are padded on all sides, in time too. The third branch, 5x5 on paper, is 3x3x3 in the published I3D.

    Source: Carreira & Zisserman, *Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset*, 2017, figure 3.

    >>> from kit import models
    >>> models.inception3d_block(8, widths=(8, 8, 8, 8, 8, 8))(torch.rand(1, 8, 4, 7, 7)).shape
    torch.Size([1, 32, 4, 7, 7])

    Args:
        widths: channels of 1x1x1; of 3x3x3 with its reduction first; of the third branch likewise; of the pool branch.
    """
    return keep_signal(inception_v1_block(in_channels, *widths, conv=nn.Conv3d), seed).eval()


class EdgeConv3d(nn.Conv3d):
    """A 3-D convolution that pads time by repeating the first and the last frame, and space by zeros.

    With zeros in time a still clip would not look still to the network at its ends.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        time, *space = (int(side) for side in self.padding)
        if time:
            input = functional.pad(input, (0, 0, 0, 0, time, time), mode="replicate")
        return functional.conv3d(input, weight, bias, self.stride, (0, *space), self.dilation, self.groups)


class TwoStreamI3D(nn.Module):
    """Two inflated Inception v1 networks, one on RGB and one on optical flow, whose scores are averaged."""

    def __init__(self, rgb: nn.Module, flow: nn.Module) -> None:
        super().__init__()
        self.streams = Branches({"rgb": rgb, "flow": flow}, Mean())

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Scores ``(N, classes)`` of frames ``(N, 3, T, H, W)`` and the flow of each ``(N, 2, T, H, W)``.

        Raises:
            ShapeError: frames and flow that are not of the same clips.
        """
        if rgb.shape[:1] + rgb.shape[2:] != flow.shape[:1] + flow.shape[2:]:
            raise ShapeError(
                "the two-stream I3D takes RGB (N, 3, T, H, W) and flow (N, 2, T, H, W) with the same N, T, H and W, "
                f"but was given {tuple(rgb.shape)} and {tuple(flow.shape)}: give each frame its flow."
            )
        scores: Tensor = self.streams(rgb, flow)
        return scores


def two_stream_i3d(classes: int = 400, *, width: float = 1, seed: int = 0) -> TwoStreamI3D:
    """The two-stream I3D in eval mode, fused by the mean of both streams' scores.

    RGB ``(N, 3, T, H, W)`` and flow ``(N, 2, T, H, W)`` to ``(N, classes)``; published for T = 64, H = W = 224, and
    taking T from 3 and H and W from 32 on.

    Source: Carreira & Zisserman, *Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset*, 2017, arXiv
    1705.07750. Unlike there, time is padded by repeating frames (:class:`EdgeConv3d`).

    >>> from kit import models
    >>> network = models.two_stream_i3d(classes=10, width=1 / 8)
    >>> network(torch.rand(1, 3, 8, 32, 32), torch.rand(1, 2, 8, 32, 32)).shape
    torch.Size([1, 10])

    Args:
        width: scales every channel number; a multiple of 1/8.

    Raises:
        KitError: a width that leaves fractions of channels.
    """

    def stream(in_channels: int) -> Inception:
        stages = inception_v1(in_channels, classes, width, conv=EdgeConv3d)
        return Inception(stages, {}, in_channels=in_channels, dims=3, smallest=32)

    return keep_signal(TwoStreamI3D(stream(3), stream(2)), seed).eval()


def inflate(stream: Inception, flat: Inception) -> Inception:
    """Fill a stream of the I3D with the weights of a GoogLeNet of the same width and classes; returns the stream.

    Each kernel is repeated along time and divided by its length there, so that a still clip gets the scores that its
    frame gets from the flat network (section 2.4 of the paper). The flow stream's first layer takes the mean over the
    RGB channels (Wang et al., *Temporal Segment Networks*, 2016, cross-modality pre-training).

    >>> from kit import models
    >>> flat, solid = models.googlenet(10, width=1 / 8), models.two_stream_i3d(10, width=1 / 8)
    >>> rgb = models.inflate(solid.streams.branches["rgb"], flat)
    >>> still = torch.rand(1, 3, 32, 32)
    >>> torch.allclose(rgb(still[:, :, None].expand(-1, -1, 3, -1, -1)), flat(still), atol=1e-3)
    True

    Raises:
        WeightsError: networks of another width or number of classes.
    """
    own, weights = stream.state_dict(), {}
    for name, weight in flat.state_dict().items():
        wanted = own.get(name, weight)
        if wanted.ndim == 5:
            if name.startswith("conv1.") and stream.in_channels != flat.in_channels:
                weight = weight.mean(1, keepdim=True).expand(-1, stream.in_channels, -1, -1)
            weight = weight.unsqueeze(2).repeat(1, 1, wanted.shape[2], 1, 1) / wanted.shape[2]
        if not name.startswith("aux"):
            weights[name] = weight
    stream.transform_input = flat.transform_input and stream.in_channels == 3
    return put_weights(stream, weights, "the flat network")
