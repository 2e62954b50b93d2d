"""Three models as people bring them: ordinary forward code, nothing of the kit in it.

Each function returns ``(model, inputs)``: the model in eval mode, made from a seed, with outputs that react to every
input; the inputs as a tensor or a tuple of arguments. ``python -m kit compare kit.models.plain:inception`` takes them
as it takes a file of your own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, inplace: bool = True) -> nn.Sequential:
    """Convolution, batch norm and ReLU: ``(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)``."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace),
    )


def lively(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that are not those of a new layer and weights that pass the input on.

    A new deep network outputs little but its last bias, so that any two of them look equal.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


class InceptionBlock(nn.Module):
    """Four unequal branches on one input: ``(N, inputs, H, W) -> (N, 224 + pooled, H, W)``.

    Source: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015, figure 5.
    """

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = conv(inputs, 64, 1)
        self.branch5x5 = nn.Sequential(conv(inputs, 48, 1), conv(48, 64, 5))
        self.branch3x3 = nn.Sequential(conv(inputs, 64, 1), conv(64, 96), conv(96, 96))
        self.branch_pool = conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.branch1x1(x), self.branch5x5(x), self.branch3x3(x), pooled], dim=1)


class Inception(nn.Module):
    """The first three blocks of Inception v3 behind a short stem: ``(N, 3, H, W) -> (N, classes)``."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 32, 3, 2), conv(32, 64, 3, 2), conv(64, 192, 1))
        self.block1 = InceptionBlock(192, 32)
        self.block2 = InceptionBlock(256, 64)
        self.block3 = InceptionBlock(288, 64)
        self.fc = nn.Linear(288, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)  # (N, 192, H / 4, W / 4)
        x = self.block3(self.block2(self.block1(x)))  # (N, 288, H / 4, W / 4)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each behind a layer norm: ``(N, L, width) -> (N, L, width)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (each.view(batch, length, self.heads, -1).transpose(1, 2) for each in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)  # (N, heads, L, width / heads)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        y: Tensor = x + self.feed_forward(self.norm2(x))
        return y


class TextTower(nn.Module):
    """A transformer: word indices ``(N, L) -> (N, width)``."""

    def __init__(self, words: int, length: int, width: int, blocks: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(length, width))
        self.blocks = nn.Sequential(*[TransformerBlock(width, 4) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)

    def forward(self, caption: Tensor) -> Tensor:
        x = self.words(caption) + self.positions  # (N, L, width)
        y: Tensor = self.norm(self.blocks(x)).mean(1)
        return y


class TwoTowers(nn.Module):
    """A picture and a caption, each through a tower of its own into one space.

    In the manner of Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, 2021.
    """

    def __init__(self, words: int = 1000, length: int = 64, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.image = nn.Sequential(
            conv(3, 32, 7, 2),
            conv(32, 64, 3, 2),
            conv(64, 64),
            conv(64, 128, 3, 2),
            conv(128, 128),
            conv(128, 128),
            conv(128, 128),
            conv(128, 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, width),
        )
        self.text = TextTower(words, length, width, blocks)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor, caption: Tensor) -> dict[str, Tensor]:
        seen = F.normalize(self.image(image), dim=-1)  # (N, width)
        read = F.normalize(self.text(caption), dim=-1)  # (N, width)
        return {"image": seen, "caption": read, "similarity": self.scale.exp() * seen @ read.T}


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: ``(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.conv2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18: ``(N, 3, H, W) -> (N, classes)``.

    Source: He et al., *Deep Residual Learning for Image Recognition*, 2015, table 1.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        widths = (64, 64, 128, 256, 512)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(widths[i] if first else widths[i + 1], widths[i + 1], 2 if i and first else 1)
                for i in range(4)
                for first in (True, False)
            )
        )
        self.fc = nn.Linear(512, classes)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.blocks(self.stem(image)).mean((2, 3)))
        return scores


def inception() -> tuple[nn.Module, Tensor]:
    """Twelve branches in three regions: there is something to gain."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(Inception()), torch.randn(1, 3, 96, 96)


def two_towers() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Two towers of about the same time: one region around nearly all of the work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(TwoTowers()), (torch.randn(1, 3, 128, 128), torch.randint(1000, (1, 64)))


def resnet() -> tuple[nn.Module, Tensor]:
    """A chain but for its shortcuts: there is nothing to gain."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(ResNet()), torch.randn(1, 3, 96, 96)
