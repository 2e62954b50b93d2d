"""Self-attention over a sliding window of tokens, of which only the last token's output is asked for.

Keys and values of earlier tokens do not depend on what comes after them, so a step computes those of one token, and one
query. This holds for one layer. A second layer attends to *all* outputs of the first, and each of these changes with
every new token: nothing of them can be kept.

Source: Hedegaard, Bakhtiarnia, Iosifidis, *Continual Transformers: Redundancy-Free Attention for Online Inference*,
2023, of which this is the "single output" form.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kit.errors import KitError, ShapeError
from kit.models.continual.steps import Window


class SlidingAttention(nn.Module):
    """The last token's output of every window of tokens: ``(N, T, E) -> (N, T - window + 1, E)``.

    Each window is given to the layer by itself, as one would without a step.

    >>> from kit.models.continual import SlidingAttention
    >>> attention = SlidingAttention(nn.MultiheadAttention(16, 4, batch_first=True), window=6).eval()
    >>> attention(torch.rand(1, 20, 16)).shape
    torch.Size([1, 15, 16])

    Args:
        layer: ``nn.MultiheadAttention`` (each window is its query, key and value), ``nn.TransformerEncoderLayer`` or
            ``nn.TransformerEncoder``, with ``batch_first=True``.
        window: tokens in a window, at least 1.

    Raises:
        KitError: another layer, one without ``batch_first``, or no window.
        ShapeError: in a call, fewer tokens than a window.
    """

    def __init__(self, layer: nn.Module, window: int) -> None:
        super().__init__()
        kinds = nn.MultiheadAttention | nn.TransformerEncoderLayer | nn.TransformerEncoder
        if not isinstance(layer, kinds) or window < 1:
            raise KitError(
                "SlidingAttention takes nn.MultiheadAttention, nn.TransformerEncoderLayer or nn.TransformerEncoder and "
                f"a window of 1 or more tokens, but was given {type(layer).__name__} and {window}."
            )
        attention = next(x for x in layer.modules() if isinstance(x, nn.MultiheadAttention))
        if not attention.batch_first:
            raise KitError(f"{type(layer).__name__} takes (T, N, E): make it with batch_first=True.")
        self.layer, self.window, self.features = layer, window, attention.embed_dim

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < self.window:
            raise ShapeError(f"{x.shape[1]} tokens are fewer than a window of {self.window}.")
        windows = x.unfold(1, self.window, 1).transpose(2, 3)  # (N, T', window, E)
        each = windows.flatten(0, 1).contiguous()
        out = self.layer(each, each, each, need_weights=False)[0] if _alone(self.layer) else self.layer(each)
        last: Tensor = out[:, -1]
        return last.view(*windows.shape[:2], -1)

    def extra_repr(self) -> str:
        return f"window={self.window}"


def reason_against(sliding: SlidingAttention) -> str:
    """Why the steps of a sliding layer would not be exact, or are not known, as the end of a sentence; else nothing."""
    layer, what = sliding.layer, type(sliding.layer).__name__
    if isinstance(layer, nn.TransformerEncoder):
        if len(layer.layers) > 1:
            return (
                f"{what} of {len(layer.layers)} layers: the later ones attend to all outputs of the first, which "
                "change with every new token, so no step can keep them. Take one layer; or chain a SlidingAttention "
                "for each layer, which is another network (it sees more tokens)"
            )
        layer = layer.layers[0]
    for module in sliding.modules():
        if type(module) not in _PARTS:
            return f"{what} with {type(module).__name__}, of which it is not known whether it mixes tokens"
    attention = next(x for x in sliding.modules() if isinstance(x, nn.MultiheadAttention))
    if not attention._qkv_same_embed_dim or attention.bias_k is not None or attention.add_zero_attn:
        return f"{what} with bias_k, zero attention, or keys of other sizes: leave these out"
    activation = getattr(layer, "activation", functional.relu)
    if activation not in _ACTIVATIONS and type(activation) not in _PARTS:
        return f"{what} with the activation {activation}: take relu or gelu"
    return ""


class AttentionStep(Window):
    """A sliding layer of attention by steps: the keys and values of each token are computed once, and one query."""

    def __init__(self, name: str, sliding: SlidingAttention) -> None:
        super().__init__(name, sliding.window)
        self.layer: Any = copy.deepcopy(sliding.layer).requires_grad_(False)
        encoder = self.layer if isinstance(self.layer, nn.TransformerEncoder) else None
        self.norm = encoder.norm if encoder else None
        self.block: Any = encoder.layers[0] if encoder else None if _alone(self.layer) else self.layer
        self.attention: Any = self.block.self_attn if self.block else self.layer
        self.features = sliding.features

    def prepared(self, x: Tensor) -> Tensor:
        """Key and value of a token: ``(N, 1, E) -> (N, 1, 2 E)``."""
        if x.shape[2] != self.features:
            raise ShapeError(f"{self.name} takes tokens of {self.features} features, and gets {x.shape[2]}.")
        return self._projected(x, slice(self.features, None))

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        block = self.block
        keys, values = (self._heads(x) for x in torch.cat(frames, 1).chunk(2, 2))
        query = self._heads(self._projected(given, slice(self.features)))
        seen = functional.scaled_dot_product_attention(query, keys, values)  # (N, heads, 1, E / heads)
        out: Tensor = self.attention.out_proj(seen.transpose(1, 2).flatten(2))
        if block is not None:
            x = given + out
            if block.norm_first:
                out = x + self._feed_forward(block.norm2(x))
            else:
                x = block.norm1(x)
                out = block.norm2(x + self._feed_forward(x))
        return out if self.norm is None else self.norm(out)

    def _projected(self, x: Tensor, rows: slice) -> Tensor:
        """What the attention makes of a token: the query, key and value are rows of one matrix."""
        if self.block is not None and self.block.norm_first:
            x = self.block.norm1(x)
        bias = self.attention.in_proj_bias
        return functional.linear(x, self.attention.in_proj_weight[rows], None if bias is None else bias[rows])

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block.linear2(self.block.activation(self.block.linear1(x)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """``(N, T, E) -> (N, heads, T, E / heads)``."""
        return x.view(*x.shape[:2], self.attention.num_heads, -1).transpose(1, 2)


def _alone(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MultiheadAttention)


_ACTIVATIONS = {functional.relu, functional.gelu}
_PARTS = {
    *(SlidingAttention, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.ModuleList),
    *(nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.LayerNorm, nn.Dropout, nn.ReLU, nn.GELU),
}
