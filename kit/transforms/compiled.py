"""torch.compile; the compile time is reported separately."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kit.errors import MeasureError
from kit.machine.hardware import Hardware
from kit.transforms.base import Transform

MOST_PIECES = 256  # that one piece of Python code may be compiled into


@dataclass(frozen=True, kw_only=True)
class Compiled(Transform):
    """torch.compile: operators fused into generated C++ (Triton on a GPU), only for the shapes of these inputs.

    Without an executor it compiles the whole model. Before an executor it compiles each branch of the outermost
    regions, and the rest of the model runs uncompiled. Helps when small operators between convolutions take much of the
    time. Does not help when large kernels take most of the time, or when too few calls follow to break even. Torch
    keeps the generated code and its guards as long as the process lives: 0.7 MB per preparation of a small region.

    Source: `torch.compile <https://docs.pytorch.org/docs/stable/generated/torch.compile.html>`_.
    """

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    freezing: bool = False  # weights become constants, so that batch norms fold and layouts are chosen once (CPU)

    opaque: ClassVar[str] = "one compiled function"
    per_branch: ClassVar[bool] = True
    not_picklable: ClassVar[str] = "compiled code"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        return _CompiledCall(model, {**torch._inductor.list_mode_options(self.mode), "freezing": self.freezing})

    def freeze(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        # Where Python that cannot be compiled breaks a model into pieces, all its regions share the code of
        # Branches.forward: more than the usual eight, and the rest would silently stay as it is.
        try:
            with torch._dynamo.config.patch(recompile_limit=MOST_PIECES), torch.inference_mode():
                model(*args)
        except BaseException:
            _stop_compilers()
            raise
        return _NeverAgain(model)

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        if machine.cxx is None:
            return "torch.compile needs a C++ compiler: install one, as in `apt-get install g++`."
        if not machine.python_headers:
            return "torch.compile needs Python's headers: install them, as in `apt-get install python3-dev`."
        return None


def _stop_compilers() -> None:
    """Cancel waiting compile jobs: otherwise dozens of compilers would disturb the next measurement."""
    from torch._inductor.async_compile import AsyncCompile

    if AsyncCompile.pool.cache_info().currsize:  # else none has been started
        AsyncCompile.pool().shutdown(cancel_futures=True)
        AsyncCompile.pool.cache_clear()


class _CompiledCall(nn.Module):
    """A module that is compiled on its first call."""

    def __init__(self, module: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.copies = bool(options.get("triton.cudagraphs"))  # the next call overwrites what a captured graph gave

        def call(*args: Any) -> Any:
            return module(*args)

        # Compiled code is kept with the code that it was compiled from, a few entries each, and all chains of layers
        # share that of nn.Sequential. With code of its own each module has its own entries, which go when it goes.
        own = types.FunctionType(call.__code__.replace(), globals(), closure=call.__closure__)
        self.call = torch.compile(own, dynamic=False, options=options)

    def forward(self, *args: Any) -> Any:
        with torch.inference_mode():  # which is part of what code is compiled for
            result = self.call(*pytree.tree_map_only(Tensor, _of_inference, args))
            return pytree.tree_map_only(Tensor, torch.clone, result) if self.copies else result


def _of_inference(x: Tensor) -> Tensor:
    """The same memory as an inference tensor: code compiled for inference tensors accepts no others."""
    if x.is_inference():
        return x
    empty = torch.empty(0, dtype=x.dtype, device=x.device)
    return empty.set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


class _NeverAgain(nn.Module):
    """A compiled model that raises on other inputs: compiling again would take seconds within a measurement."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Any:
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                return self.model(*args)
        except Exception as error:
            if "fail_on_recompile" not in str(error):
                raise
            guards = " ".join(str(error).partition("failure(s):")[2].split())
            raise MeasureError(
                "this call would compile the model again, since shapes, dtypes, intra-op threads or autocast differ "
                f"from those it was prepared with: prepare it again with these inputs. Guards that failed: {guards}"
            ) from error
