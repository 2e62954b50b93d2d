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
from kit.models.continual.steps import Crop
from kit.models.inception3d import EdgeConv3d
from kit.regions import Branches, Concat, Mean

CONVOLUTIONS = {nn.Conv3d, EdgeConv3d}
_POOLS = {nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d}
_POINTWISE = {
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
    *(nn.Dropout, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),  # in eval mode, which is asked for
}
_BATCH_NORMS = {nn.BatchNorm3d, nn.SyncBatchNorm}
_SOFTMAXES = {nn.Softmax, nn.LogSoftmax}
_LAYER_NORMS = {nn.LayerNorm, nn.RMSNorm}
_KNOWN = {nn.Sequential, Branches, Crop} | CONVOLUTIONS | _POOLS | _POINTWISE | _BATCH_NORMS | _SOFTMAXES | _LAYER_NORMS
_INSIDE_FRAMES = {-4, -2, -1, 1, 3, 4}  # dimensions of (N, C, T, H, W)
_LIBRARY_FOR_STEPS = {"_make_padding"}  # an attribute of co.Conv3d, which its forward does not use


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


def looks_at_one_frame(module: Any) -> bool:
    """Whether a layer, on clips, does with each frame what it does with that frame alone."""
    kind = type(module)
    if kind in _BATCH_NORMS:
        return module.running_mean is not None and module.running_var is not None
    if kind in (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d):
        sizes = module.output_size
        return isinstance(sizes, tuple | list) and sizes[0] is None and not getattr(module, "return_indices", False)
    if kind in _SOFTMAXES:
        return module.dim in _INSIDE_FRAMES
    if kind in _LAYER_NORMS:
        return len(module.normalized_shape) < 3
    return kind in _POINTWISE or kind is by_name("kit.transforms.heads", "Bias")


def merges_frame_by_frame(merge: Any) -> bool:
    """Whether a region's merge does with each frame of the branches what it does with that frame alone."""
    return merge is sum or type(merge) is Mean or (type(merge) is Concat and merge.dim in _INSIDE_FRAMES)


def unknown(module: nn.Module) -> str:
    """A module that has no step, and why, as the end of a sentence."""
    kind = type(module)
    if kind in _BATCH_NORMS:
        return f"{module}, and without running statistics it takes those of the whole clip: track them"
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
