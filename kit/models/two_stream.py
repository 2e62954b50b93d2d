"""The two-stream network (Simonyan & Zisserman, 2014): appearance and motion, recognised apart and fused late."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from kit.errors import ShapeError, UnknownNameError
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Mean

Fusion = Literal["mean", "concat"]


def small_backbone(in_channels: int, width: int = 32) -> nn.Sequential:
    """Five convolutions with stride 16 in all: ``(N, in_channels, H, W) -> (N, 4 * width)``, H and W >= 16."""
    channels = (in_channels, width, 2 * width, 2 * width, 4 * width, 4 * width)
    strides = (2, 2, 1, 2, 2)
    layers: list[nn.Module] = []
    for i, stride in enumerate(strides):
        kernel = 7 if i == 0 else 3
        layers += [
            nn.Conv2d(channels[i], channels[i + 1], kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels[i + 1]),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TwoStream(nn.Module):
    """A spatial and a temporal stream, fused late.

    Source: Simonyan & Zisserman, *Two-Stream Convolutional Networks for Action Recognition in Videos*, NeurIPS 2014.

    Args:
        spatial: maps an RGB frame ``(N, 3, H, W)`` to its output.
        temporal: maps a stack of L flow fields ``(N, 2L, H, W)`` to its output.
        merge: fuses the list of both outputs into scores ``(N, classes)``.
        flow_channels: 2L, checked on every call.
    """

    def __init__(self, spatial: nn.Module, temporal: nn.Module, merge: nn.Module, flow_channels: int = 20) -> None:
        super().__init__()
        self.flow_channels = flow_channels
        self.streams = Branches({"spatial": spatial, "temporal": temporal}, merge)

    def forward(self, frame: Tensor, flow: Tensor) -> Tensor:
        """Scores ``(N, classes)`` of a frame ``(N, 3, H, W)`` and its flow stack ``(N, 2L, H, W)``.

        Raises:
            ShapeError: an input with another number of dimensions or channels, or batches that differ.
        """
        for name, x, channels in (("frame", frame, 3), ("flow", flow, self.flow_channels)):
            if x.ndim != 4 or x.shape[1] != channels:
                raise ShapeError(
                    f"the two-stream network wants {name} (N, {channels}, H, W), got {tuple(x.shape)}: "
                    "give one RGB frame and one stack of flow fields, as kit.clips.two_stream_inputs makes them."
                )
        if frame.shape[0] != flow.shape[0]:
            raise ShapeError(
                f"frame and flow must have the same batch, got {frame.shape[0]} and {flow.shape[0]}: "
                "give each clip one frame and one flow stack."
            )
        scores: Tensor = self.streams(frame, flow)
        return scores


def two_stream(
    classes: int = 10, *, flow_length: int = 10, fusion: Fusion = "concat", width: int = 32, seed: int = 0
) -> TwoStream:
    """A small two-stream network in eval mode, initialised from ``seed`` so that its signal survives.

    Args:
        classes: scores per clip.
        flow_length: L, flow fields per stack; the temporal stream takes 2L channels.
        fusion: ``"mean"`` averages the streams' class scores; ``"concat"`` joins their features for one linear layer.
        width: channels of the first convolution of each stream.

    Raises:
        UnknownNameError: a fusion that is neither.
    """
    spatial, temporal = small_backbone(3, width), small_backbone(2 * flow_length, width)
    features = 4 * width
    merge: nn.Module
    if fusion == "concat":
        merge = nn.Sequential(Concat(1), nn.Linear(2 * features, classes))
    elif fusion == "mean":
        spatial.append(nn.Linear(features, classes))
        temporal.append(nn.Linear(features, classes))
        merge = Mean()
    else:
        raise UnknownNameError("fusion", fusion, ("mean", "concat"))
    return keep_signal(TwoStream(spatial, temporal, merge, 2 * flow_length), seed).eval()


def toy_two_stream(*, seed: int = 0) -> TwoStream:
    """The toy of the web's best-known recipe: one 3x3 convolution a stream, on 25x25 inputs.

    Frame ``(N, 3, 25, 25)``, flow ``(N, 2, 25, 25)``, scores ``(N, 10)``. So little work that whatever a parallel
    approach adds outweighs what it saves.
    """
    spatial = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten())  # (N, 16 * 25 * 25)
    temporal = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten())
    merge = nn.Sequential(Concat(1), nn.Linear(2 * 16 * 25 * 25, 10))
    return keep_signal(TwoStream(spatial, temporal, merge, flow_channels=2), seed).eval()
