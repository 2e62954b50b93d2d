"""The two-stream network (Simonyan & Zisserman, 2014): appearance and motion, recognised apart and fused late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from kit.data_files import data_file
from kit.errors import ShapeError, UnknownNameError, WeightsError
from kit.models.init import keep_signal
from kit.models.weights import load_weights
from kit.regions import Branches, Concat, Mean

Backbone = Literal["small", "cnn-m"]
Fusion = Literal["mean", "concat"]
TRAINED_CLASSES = 45  # a class for each of five textures with each of nine motions, which kit.clips.scenes names
TRAINED_SIZE = 96  # pixels a side that the trained network was trained on
TRAINED_WEIGHTS = data_file("weights/two_stream.safetensors")


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


def cnn_m_backbone(in_channels: int, width: int = 96) -> nn.Sequential:
    """The paper's CNN-M-2048 up to its last features: ``(N, in_channels, 224, 224) -> (N, 64 * width // 3)``.

    With the paper's width of 96 that is 2048 features and 88 million parameters for an RGB frame. Source: Simonyan &
    Zisserman 2014, figure 1; strides, padding and pooling as in Chatfield et al., *Return of the Devil in the Details*,
    BMVC 2014, table 1.
    """

    def conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True)]

    second, third, full = 8 * width // 3, 16 * width // 3, 128 * width // 3
    return nn.Sequential(
        *conv(in_channels, width, 7, 2, 0),  # (N, 96, 109, 109)
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2),
        nn.MaxPool2d(3, 2),  # (N, 96, 54, 54)
        *conv(width, second, 5, 2, 1),  # (N, 256, 26, 26)
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),  # (N, 256, 13, 13)
        *conv(second, third, 3, 1, 1),
        *conv(third, third, 3, 1, 1),
        *conv(third, third, 3, 1, 1),  # (N, 512, 13, 13)
        nn.MaxPool2d(3, 2),  # (N, 512, 6, 6)
        nn.Flatten(),
        nn.Linear(third * 6 * 6, full),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(full, full // 2),
        nn.ReLU(inplace=True),
        nn.Dropout(),
    )


_BACKBONES: dict[str, tuple[Callable[[int, int], nn.Sequential], int, Callable[[int], int]]] = {
    "small": (small_backbone, 32, lambda width: 4 * width),  # its width, and its features at a width
    "cnn-m": (cnn_m_backbone, 96, lambda width: 64 * width // 3),
}


class TwoStream(nn.Module):
    """A spatial and a temporal stream, fused late.

    Source: Simonyan & Zisserman, *Two-Stream Convolutional Networks for Action Recognition in Videos*, NeurIPS 2014.

    >>> from kit import models
    >>> spatial = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    >>> temporal = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    >>> network = models.TwoStream(spatial, temporal, kit.Mean(), flow_channels=4).eval()
    >>> network(torch.rand(1, 3, 8, 8), torch.rand(1, 4, 8, 8)).shape
    torch.Size([1, 5])

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
                    f"the two-stream network takes {name} (N, {channels}, H, W), but was given {tuple(x.shape)}: give "
                    "one RGB frame and one stack of flow fields, as kit.clips.two_stream_inputs makes them."
                )
        if frame.shape[0] != flow.shape[0]:
            raise ShapeError(
                f"frame and flow must have the same batch size, but have {frame.shape[0]} and {flow.shape[0]}: give "
                "each clip one frame and one flow stack."
            )
        scores: Tensor = self.streams(frame, flow)
        return scores


def two_stream(
    classes: int = 10,
    *,
    flow_length: int = 10,
    fusion: Fusion = "concat",
    backbone: Backbone = "small",
    width: int | None = None,
    seed: int = 0,
) -> TwoStream:
    """A two-stream network in eval mode, initialised from ``seed`` so that its signal survives.

    >>> from kit import models
    >>> network = models.two_stream(classes=5, width=8, fusion="mean")
    >>> network(torch.rand(1, 3, 32, 32), torch.rand(1, 20, 32, 32)).shape
    torch.Size([1, 5])

    Args:
        classes: scores per clip.
        flow_length: L, flow fields per stack; the temporal stream takes 2L channels.
        fusion: ``"mean"`` averages the streams' class scores; ``"concat"`` joins their features for one linear layer.
        backbone: of both streams: ``"small"`` for any size from 16 pixels on, or the paper's ``"cnn-m"`` for 224.
        width: channels of the first convolution of each stream; None: 32 for small, 96 for cnn-m.

    Raises:
        UnknownNameError: a fusion or a backbone that is not there.
    """
    if backbone not in _BACKBONES:
        raise UnknownNameError("backbone", backbone, _BACKBONES)
    make, usual, features_of = _BACKBONES[backbone]
    width = width or usual
    spatial, temporal, features = make(3, width), make(2 * flow_length, width), features_of(width)
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


def untrained(seed: int = 0) -> TwoStream:
    """The network that :func:`trained_two_stream` fills: a class for each texture with each motion, fused by mean."""
    return two_stream(TRAINED_CLASSES, fusion="mean", width=16, seed=seed)


def trained_two_stream() -> TwoStream:
    """A two-stream network that tells textures and motions of generated clips, at TRAINED_SIZE pixels a side.

    Its scores are ``(N, textures * motions)``, the motions of the first texture first; :mod:`kit.clips.scenes` names
    them.
    How it was trained, and how well it does, is beside its weights, in ``data/weights/two_stream.json``.

    >>> from kit import clips, models
    >>> frame, flow = clips.two_stream_inputs(clips.labelled("rings", "left"))
    >>> scores = models.trained_two_stream()(torch.from_numpy(frame), torch.from_numpy(flow))
    >>> texture, motion = divmod(int(scores.argmax()), len(clips.MOTIONS))
    >>> clips.TEXTURES[texture], clips.MOTIONS[motion]
    ('rings', 'left')

    Raises:
        WeightsError: the weights are not there, or damaged.
        UnavailableError: the package safetensors is not installed.
    """
    if not TRAINED_WEIGHTS.is_file():
        command = "python -m kit train two-stream"
        raise WeightsError(f"{str(TRAINED_WEIGHTS)!r} does not exist: download it again, or train it with '{command}'.")
    return load_weights(untrained(), TRAINED_WEIGHTS)


def toy_two_stream(*, seed: int = 0) -> TwoStream:
    """The toy of the web's best-known recipe: one 3x3 convolution a stream, on 25x25 inputs.

    Frame ``(N, 3, 25, 25)``, flow ``(N, 2, 25, 25)``, scores ``(N, 10)``. So little work that whatever a parallel
    approach adds outweighs what it saves.

    >>> from kit import models
    >>> models.toy_two_stream()(torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)).shape
    torch.Size([1, 10])
    """
    spatial = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten())  # (N, 16 * 25 * 25)
    temporal = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten())
    merge = nn.Sequential(Concat(1), nn.Linear(2 * 16 * 25 * 25, 10))
    return keep_signal(TwoStream(spatial, temporal, merge, flow_channels=2), seed).eval()
