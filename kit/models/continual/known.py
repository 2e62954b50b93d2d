"""Which modules are known exactly: by their very class, with nothing put in the place of what it does."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from kit.errors import KitError
from kit.models.continual.attention import SlidingAttention
from kit.models.continual.layout import Layout
from kit.models.continual.steps import Crop
from kit.models.inception3d import EdgeConv3d
from kit.regions import Branches, Concat, Mean, Product

CONVOLUTIONS = {nn.Conv1d, nn.Conv2d, nn.Conv3d, EdgeConv3d}  # whose first dimension is time
MAX_POOLS = {nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d}
AVG_POOLS = {nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d}
_ADAPTIVE_POOLS = {nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d}
_LIBRARY_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d")
_POINTWISE = {
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
    # in eval mode, which is asked for
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
}
_BATCH_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}
_SOFTMAXES = {nn.Softmax, nn.LogSoftmax}
_LAYER_NORMS = {nn.LayerNorm, nn.RMSNorm}
_KNOWN = {nn.Sequential, Branches, Crop, SlidingAttention, nn.Linear} | CONVOLUTIONS | MAX_POOLS | AVG_POOLS
_KNOWN |= _ADAPTIVE_POOLS | _POINTWISE | _BATCH_NORMS | _SOFTMAXES | _LAYER_NORMS
_LIBRARY_FOR_STEPS = {"_make_padding", "_conv_func", "_ConvClass"}  # attributes of its convolutions: what is as usual


def by_name(module: str, name: str) -> Any:
    """A class of a module that may not be imported here; None while nobody has, as then nothing can be of it."""
    return getattr(sys.modules.get(module), name, None)


def as_its_class(module: Any, name: str) -> None:
    """Whether a module does what its class does, and in eval mode.

    Raises:
        KitError: it has hooks or methods of its own, has no weights yet, or is in training mode.
    """
    if not isinstance(module, nn.Module):
        raise KitError(f"{name} is {module!r}, not a module: remove it.")
    kind = type(module)
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise KitError(f"{name} is {kind.__name__} without weights: call the model on a clip first.")
    if module._forward_hooks or module._forward_pre_hooks:
        raise KitError(
            f"{name} has forward hooks, which no step would call: remove them (weight norm and pruning have their own "
            "remove functions in torch.nn.utils), or do what they do in a layer."
        )
    own = [key for key in vars(module) if callable(getattr(kind, key, None)) and key not in _LIBRARY_FOR_STEPS]
    if own:
        raise KitError(
            f"{name} has a {own[0]} of its own in the place of {kind.__name__}'s, which no step would call: delete it."
        )
    if module.training and isinstance(module, _BatchNorm | _DropoutNd | nn.RReLU):
        raise KitError(f"{name} is in training mode, and looks at whole batches and clips: call model.eval() first.")


def is_convolution(module: Any) -> bool:
    """Whether a layer is a convolution over time, of PyTorch, of the kit, or of the library *continual-inference*."""
    kind = type(module)
    return kind in CONVOLUTIONS or kind in {by_name("continual.conv", name) for name in _LIBRARY_CONVOLUTIONS} - {None}


def looks_at_one_frame(module: Any, layout: Layout) -> bool:
    """Whether a layer, on clips of this layout, does with each frame what it does with that frame alone."""
    kind = type(module)
    if kind in _BATCH_NORMS:
        return layout.time == 2 and module.running_mean is not None and module.running_var is not None
    if kind in _ADAPTIVE_POOLS:
        sizes = module.output_size
        return isinstance(sizes, tuple | list) and sizes[0] is None and not getattr(module, "return_indices", False)
    if kind in _SOFTMAXES:
        return module.dim is not None and not layout.looks_over_time(module.dim)
    if kind in _LAYER_NORMS:
        return len(module.normalized_shape) <= layout.space
    if kind is nn.Linear:
        return not layout.looks_over_time(-1)
    if kind is by_name("continual.linear", "Linear"):
        return not layout.looks_over_time(module.channel_dim)
    if kind is nn.PReLU:
        return layout.time == 2 or module.num_parameters == 1
    return kind in _POINTWISE or kind is by_name("kit.transforms.heads", "Bias")


def last_dimensions(module: Any) -> tuple[int, ...]:
    """The sizes that a layer asks of the last dimensions of what it takes; none if it takes any."""
    if isinstance(module, nn.Linear) and getattr(module, "channel_dim", -1) == -1:
        return (module.in_features,)
    return tuple(module.normalized_shape or ()) if type(module) in _LAYER_NORMS else ()


def merges_frame_by_frame(merge: Any, layout: Layout) -> bool:
    """Whether a region's merge does with each frame of the branches what it does with that frame alone."""
    if type(merge) is Concat:
        return not layout.looks_over_time(merge.dim)
    return merge is sum or type(merge) in (Mean, Product)


def unknown(module: nn.Module, layout: Layout) -> str:
    """A module that has no step, and why, as the end of a sentence."""
    kind = type(module)
    if kind in _BATCH_NORMS:
        return f"{module}, and without running statistics it takes those of the whole clip: track them"
    if kind is nn.Linear or kind in _LAYER_NORMS or kind in _SOFTMAXES or kind is by_name("continual.linear", "Linear"):
        return f"{module}, which takes in the dimension of time of a clip {layout.clip}"
    if isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer | nn.TransformerEncoder):
        return (
            f"{kind.__name__}, in which every token of a clip sees every other, later ones too: say how many tokens a "
            "window has, as in kit.models.continual.SlidingAttention(layer, window)"
        )
    if getattr(module, "return_indices", False):
        return f"{module}, and gives indices too: leave return_indices out"
    if kind not in _KNOWN and (base := next((base for base in kind.__mro__ if base in _KNOWN), None)):
        remedy = (
            "remove its parametrizations with torch.nn.utils.parametrize.remove_parametrizations"
            if is_parametrized(module)
            else f"write it with {base.__name__} itself"
        )
        return f"{kind.__name__}, a subclass of {base.__name__} that may do something else: {remedy}"
    said = kind.__name__ if next(module.children(), None) else module  # the text of a whole network is long
    return f"{said}, of which it is not known how it looks at time"
