"""Networks as people write them, without :class:`kit.Branches`: a few milliseconds each.

Each function returns ``(model, inputs)``: the model in eval mode, from a seed, with outputs that react to every input;
the inputs as a tensor, a tuple of arguments, or a dict of keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.models import plain
from kit.models.plain import conv, lively

Made = tuple[nn.Module, Any]


class Siamese(nn.Module):
    """How far two pictures are from each other, by one tower that sees both."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(32, 8)

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.head(self.tower(x)), dim=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.embed(left) - self.embed(right)).pow(2).sum(1)


class Classifier(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, width, size, 2), conv(width, 2 * width, 3, 2))
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.mean((2, 3))
        return self.classifier(x)


class Ensemble(nn.Module):
    """The mean of what three networks say."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([Classifier(16, 3), Classifier(16, 5), Classifier(24, 3)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x).softmax(1) for member in self.members]).mean(0)


class Pyramid(nn.Module):
    """A feature pyramid: five levels, the upper ones from the lower, and on each the same two heads."""

    def __init__(self, levels: int = 5) -> None:
        super().__init__()
        widths = [8 * (i + 1) for i in range(levels)]
        self.down = nn.ModuleList([conv(i, o, 3, 2) for i, o in zip([3, *widths], widths, strict=False)])
        self.lateral = nn.ModuleList([nn.Conv2d(width, 16, 1) for width in widths])
        self.smooth = nn.ModuleList([conv(16, 16) for _ in widths])
        self.classes = nn.Sequential(conv(16, 16), nn.Conv2d(16, 4, 3, padding=1))
        self.boxes = nn.Sequential(conv(16, 16), nn.Conv2d(16, 4, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        tops = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for i in range(len(tops) - 1, 0, -1):
            tops[i - 1] = tops[i - 1] + F.interpolate(tops[i], size=tops[i - 1].shape[-2:], mode="nearest")
        tops = [smooth(top) for smooth, top in zip(self.smooth, tops, strict=True)]
        return [self.classes(top).sigmoid() for top in tops], [self.boxes(top) for top in tops]


class MultiTask(nn.Module):
    """One backbone, three tasks, and a dict of what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv(3, 24, 3, 2), conv(24, 32, 3, 2))
        self.depth = nn.Sequential(conv(32, 16), nn.Conv2d(16, 1, 1))
        self.segmentation = nn.Sequential(conv(32, 16), conv(16, 16), nn.Conv2d(16, 5, 1))
        self.scene = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> dict[str, Any]:
        features = self.backbone(x)
        size = x.shape[2:]
        return {
            "depth": F.interpolate(self.depth(features), size),
            "segmentation": F.interpolate(self.segmentation(features), size, mode="bilinear", align_corners=False),
            "scene": {"logits": self.scene(features.mean((2, 3)))},
        }


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.mid = conv(3, 16), conv(16, 24), conv(24, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 24, 2, 2), nn.ConvTranspose2d(24, 16, 2, 2)
        self.dec2, self.dec1 = conv(48, 24), conv(32, 16)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        m = self.mid(F.max_pool2d(e2, 2))
        d2 = self.dec2(torch.cat([self.up2(m), e2], 1))
        d1 = self.dec1(torch.cat([self.up1(d2), e1], 1))
        return self.out(d1)


class Reader(nn.Module):
    """Words and a picture, all arguments by keyword, one of them optional."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.gru = nn.Linear(24, 24)
        self.look = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2))
        self.answer = nn.Linear(48, 6)

    def forward(
        self, *, tokens: Tensor, picture: Tensor, mask: Tensor | None = None, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        said = torch.tanh(self.gru(self.words(tokens)))
        if mask is not None:
            said = said * mask.unsqueeze(-1)
        said = said.sum(1)
        seen = self.look(picture).amax((2, 3))
        return self.answer(torch.cat([said, seen], -1)) * scale, seen


class BySize(nn.Module):
    """What it does depends on the size of the picture, not on what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = conv(3, 16, 3), conv(3, 16, 5)
        self.shrink = conv(32, 32, 3, 2)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if x.shape[-1] > 16:  # noqa: SIM108 - as people write it
            x = F.avg_pool2d(x, 2)
        else:
            x = F.pad(x, (1, 1, 1, 1))
        y = torch.cat([self.near(x), self.far(x)], 1)
        for _ in range(height // 32):
            y = self.shrink(y)
        return self.fc(y.view(batch, 32, -1).mean(-1)) * (width / height)


class InPlace(nn.Module):
    """Residual branches that are added in place, and ReLUs that overwrite their input: all of it is sound."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 24, 3, 2)
        self.left = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(True), nn.Conv2d(24, 24, 3, padding=1))
        self.right = nn.Sequential(nn.Conv2d(24, 24, 1), nn.ReLU(True), nn.Conv2d(24, 24, 5, padding=2))
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.left(x)
        z = self.right(x)
        y += z
        y.mul_(0.5).add_(x)
        y[:, :4] = 0.1 * y[:, 4:8]
        x = F.relu_(y)
        return self.fc(x.mean((2, 3)))


def _made(make: Callable[[], nn.Module], inputs: Callable[[], Any]) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return lively(make()), inputs()


def picture(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side)


def siamese() -> Made:
    return _made(Siamese, lambda: (picture(), picture()))


def ensemble() -> Made:
    return _made(Ensemble, picture)


def pyramid() -> Made:
    return _made(Pyramid, lambda: picture(96))


def multi_task() -> Made:
    return _made(MultiTask, picture)


def unet() -> Made:
    return _made(UNet, lambda: picture(32))


def keywords() -> Made:
    def inputs() -> dict[str, Any]:
        return {
            "tokens": torch.randint(0, 50, (2, 7)),
            "picture": picture(),
            "mask": (torch.arange(7) < torch.tensor([[7], [4]])).float(),
        }

    return _made(Reader, inputs)


def bfloat16() -> Made:
    model, x = plain.inception()
    return model.to(torch.bfloat16), x.to(torch.bfloat16)


def by_size() -> Made:
    return _made(BySize, picture)


def in_place() -> Made:
    return _made(InPlace, picture)


MODELS: dict[str, Callable[[], Made]] = {
    make.__name__: make
    for make in (
        siamese,
        ensemble,
        plain.two_towers,
        pyramid,
        multi_task,
        unet,
        keywords,
        bfloat16,
        by_size,
        in_place,
    )
}
