"""What the library exports that is no module: converters, ways to call, state dicts; each tried by an example."""

from __future__ import annotations

import io
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kit.equality import compare_outputs
from kit.labs.modules.gallery import Agreement, Answer, Row, in_peace, tried
from kit.labs.modules.specimens import WINDOW, C


def exported() -> list[str]:
    """The public names of the library: the package has no ``__all__``, so what it imports that is no module of files.

    Its module ``onnx`` is one of them: the library's documentation names it ``co.onnx``.
    """
    import continual as co

    names = getattr(co, "__all__", None) or [name for name in vars(co) if not name.startswith("_")]
    return sorted(name for name in names if name == "onnx" or not isinstance(getattr(co, name), types.ModuleType))


def others() -> list[Row]:
    """A row for each name that is no module, with what was tried."""
    checks: dict[str, tuple[str, str, Callable[[], Answer]]] = {
        "continual": ("converter", "a chain of torch's layers", _continual),
        "forward_stepping": ("converter", "a 1x1x1 convolution of torch", _forward_stepping),
        "TransformerEncoderLayerFactory": ("converter", "makes both layers of an encoder", _factory),
        "onnx": ("converter", "onnx.export of a Conv3d's step", _onnx),
        "call_mode": ("way to call", "with co.call_mode('forward_step')", _call_mode),
        "CoModule": ("base class", "is_valid: a module of its own, and one of torch", _base),
        "PaddingMode": ("constants", "what a convolution and a max pool take", _padding_modes),
        "flat_state_dict": ("state dict", "keys without numbers, and loaded again", _flat),
        "state_dict": ("state dict", "with flatten=True", _state_dict),
        "load_state_dict": ("state dict", "what state_dict(flatten=True) gave", _load_state_dict),
    }
    with in_peace():
        return [
            Row(name, "", kind, step=tried(call), said=said, why=ONNX if name == "onnx" else "")
            for name, (kind, said, call) in checks.items()
        ]


ONNX = "it was written for the former exporter of PyTorch, which torch.onnx.export takes only with dynamo=False"
WRONG = "it does not do what its documentation says"


def _answer(right: bool) -> Answer:
    return None if right else WRONG


def _chain() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(C, C, 3), nn.BatchNorm3d(C), nn.ReLU()).eval()


def _continual() -> Answer:
    import continual as co

    chain, clip = _chain(), torch.randn(1, C, 5, 6, 6)
    outs = [co.continual(chain).forward_steps(clip), chain(clip)]
    return Agreement(compare_outputs(outs[1], outs[0]))


def _forward_stepping() -> Answer:
    import continual as co

    conv, clip = nn.Conv3d(C, C, 1).eval(), torch.randn(1, C, 5, 6, 6)
    want = conv(clip)[:, :, 2]
    return Agreement(compare_outputs(want, co.forward_stepping(conv).forward_step(clip[:, :, 2])))


def _factory() -> Answer:
    import continual as co

    make = co.TransformerEncoderLayerFactory(C, 2, 8, 0.0, sequence_len=WINDOW)
    layers = [make(kind) for kind in ("single_output", "single_output_forward", "retroactive")]
    return _answer(all(isinstance(layer, co.Sequential) for layer in layers))


def _onnx() -> Answer:
    import continual as co

    conv = co.Conv3d(C, C, 3).eval()
    frame, state = torch.randn(1, C, 6, 6), None
    for _ in range(3):  # a step that gives an output is exported
        _, state = conv._forward_step(frame, state)
    assert state is not None
    co.onnx.export(conv, (frame, *state), io.BytesIO(), input_names=["x"], output_names=["y"])
    return None


def _call_mode() -> Answer:
    import continual as co

    conv, clip = co.Conv3d(C, C, 3).eval(), torch.randn(1, C, 3, 6, 6)
    with co.call_mode("forward_step"):
        outs = [conv(clip[:, :, t]) for t in range(3)]
    whole = conv(clip)
    return Agreement(compare_outputs(whole[:, :, 0], outs[2])) if outs[2] is not None else WRONG


def _base() -> Answer:
    import continual as co

    return _answer(co.CoModule.is_valid(co.Delay(1)) and not co.CoModule.is_valid(nn.Conv3d(C, C, 3)))


def _padding_modes() -> Answer:
    import continual as co

    for mode in (co.PaddingMode.ZEROS, co.PaddingMode.REPLICATE):
        co.Conv3d(C, C, 3, temporal_fill=mode)
    pool, clip = co.MaxPool3d(3, 1, 1, temporal_fill=co.PaddingMode.NEG_INF), torch.randn(1, C, 5, 6, 6) - 3
    return Agreement(compare_outputs(pool(clip), pool.forward_steps(clip, pad_end=True)))


def _named() -> Any:
    import continual as co

    return co.Sequential(co.Sequential(co.Conv3d(C, C, 3)))


def _flat() -> Answer:
    import continual as co

    net, other = _named(), _named()
    with co.flat_state_dict:
        found = net.state_dict()
        other.load_state_dict(found)
    return _answer([*found] == ["weight", "bias"] and torch.equal(other[0][0].weight, net[0][0].weight))


def _state_dict() -> Answer:
    import continual as co

    return _answer([*co.state_dict(_named(), flatten=True)] == ["weight", "bias"])


def _load_state_dict() -> Answer:
    import continual as co

    net, other = _named(), _named()
    co.load_state_dict(other, co.state_dict(net, flatten=True), flatten=True)
    return _answer(torch.equal(other[0][0].weight, net[0][0].weight))
