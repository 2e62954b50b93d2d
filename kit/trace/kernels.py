"""The kernel (implementation) that each operator ran on, from a recording, and the differences of two recordings.

PyTorch picks the kernel of an operator by device, dtype, shapes, batch size and intra-op threads: a 3-D convolution at
batch 1 often runs as ``slow_conv3d`` and at batch 2 on oneDNN, four times as fast; a 1x1 convolution runs as
``thnn_conv2d`` on one thread and on oneDNN on two. If two approaches run on different kernels, their comparison also
measures this choice of kernel.

A recording does not name the algorithm that cuDNN or oneDNN uses, or their memory formats.

Source: ``ConvParams::use_mkldnn`` and ``_select_conv_backend`` in PyTorch's ``aten/src/ATen/native/Convolution.cpp``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kit.reprs import one_line
from kit.trace import Trace, wall_ns
from kit.trace.lanes import parents

SMALLEST_SHARE = 0.01  # kernels below this share of both calls cannot have made a difference that is called one


class Family(NamedTuple):
    """Operators that do the same kind of work, by the names of their events."""

    asked: str  # what a model asks for
    ran: str  # what PyTorch then picks; it may run others inside
    otherwise: str  # what ran where no such name comes up


FAMILIES = {
    "convolution": Family(
        r"aten::(conv(_transpose)?[123]d|_?convolution(_mode)?)",
        r"aten::(_?slow_conv\w+|thnn_conv\w+|_?conv_depthwise\dd|\w*(mkldnn|cudnn|miopen|nnpack|mps)\w*_convolution\w*"
        r"|convolution_overrideable)|mkldnn::_convolution\w+",
        "an unnamed kernel",
    ),
    "matrix product": Family(
        r"aten::(linear|matmul)",
        r"aten::(_?addmm\w*|b?mm|baddbmm|addmv|mv|dot|mkldnn_linear)|mkldnn::_linear\w+|mkl::_mkl_linear",
        "an unnamed kernel",
    ),
    "attention": Family(
        r"aten::scaled_dot_product_attention",
        r"aten::(_scaled_dot_product_\w+|_native_multi_head_attention|_transformer_encoder_layer_fwd)",
        "an unnamed kernel",
    ),
    "recurrent layer": Family(
        r"aten::(lstm|gru|rnn_tanh|rnn_relu)", r"aten::(mkldnn|_cudnn|miopen)_rnn\w*", "PyTorch's own operators"
    ),
    "pooling": Family(
        r"aten::(adaptive_)?(max|avg)_pool[123]d", r"aten::(mkldnn|quantized)_\w*pool\w+", "PyTorch's own kernel"
    ),
    "normalisation": Family(
        r"aten::(batch|layer|group|instance|rms)_norm",
        r"aten::(mkldnn|cudnn|miopen)_batch_norm",
        "PyTorch's own kernel",
    ),
}
LIBRARIES = {"mkldnn": "oneDNN", "cudnn": "cuDNN", "miopen": "MIOpen", "nnpack": "NNPACK", "mkl::": "MKL"}


@one_line
class Kernel(NamedTuple):
    """An implementation of an operator."""

    family: str  # of FAMILIES
    operator: str  # as the model asked for it: ``conv3d``; the family's name where it did not
    name: str  # ``slow_conv3d``, or the library that it is from


class Use(NamedTuple):
    """How one recorded call used a kernel."""

    calls: int
    share: float  # of the call's time; of several lanes together it may be more than 1


Kernels = Mapping[Kernel, Use]


@one_line
class Exchange(NamedTuple):
    """Calls of one family of operators that ran on different kernels in two recordings."""

    lost: Mapping[Kernel, int]  # kernel -> by how many calls the first recording has more
    gained: Mapping[Kernel, int]  # and the second one
    share: float  # the time of those lost, of the first call


def kernels(trace: Trace) -> Kernels:
    """The kernels of one recorded call, for families with several kernels; empty if no operators were recorded."""
    asked = [_family(name, 0) for name in trace.names]
    ran = [_family(name, 1) for name in trace.names]
    whole, duration, name = max(1, wall_ns(trace)), trace.duration_ns.tolist(), trace.name.tolist()
    inside, hidden = [-1] * len(trace), [False] * len(trace)  # the outermost request around it; below a kernel already
    found: dict[int, Kernel] = {}  # event -> what ran
    named: set[int] = set()  # requests whose kernel has a name
    for i, parent in enumerate(parents(trace).tolist()):  # a parent starts no later, and stands before
        inside[i], hidden[i] = (inside[parent], hidden[parent]) if parent >= 0 else (-1, False)
        request, family = inside[i], ran[name[i]]
        if not hidden[i] and family and (request < 0 or asked[name[request]] == family):
            operator = _short(trace.names[name[request]]) if request >= 0 else family
            found[i], hidden[i] = Kernel(family, operator, _label(trace.names[name[i]])), True
            named.add(request)
        elif not hidden[i] and request < 0 and (family := asked[name[i]]):
            inside[i], found[i] = i, Kernel(family, _short(trace.names[name[i]]), FAMILIES[family].otherwise)
    uses: dict[Kernel, Use] = {}
    for i, kernel in found.items():
        if i not in named:
            calls, share = uses.get(kernel, (0, 0.0))
            uses[kernel] = Use(calls + 1, share + duration[i] / whole)
    return uses


def exchanged(one: Kernels, other: Kernels) -> list[Exchange]:
    """Differences in kernels between two calls, without kernels that take little time.

    Operators that only one of them calls are not a difference in kernels: a network with folded batch norms, or with
    merged convolutions, calls fewer. There is a difference if, within a family, each call used a kernel that the other
    did not use.
    """
    found = []
    for family in FAMILIES:
        mine, others = (Counter[str](), Counter[str]())
        for counter, side in ((mine, one), (others, other)):
            for kernel, use in side.items():
                counter[kernel.name] += use.calls if kernel.family == family else 0
        lost, gained = mine - others, others - mine
        if lost and gained:
            less, more = _of(one, family, lost), _of(other, family, gained)
            share = sum(one[kernel].share for kernel in less)
            if max(share, sum(other[kernel].share for kernel in more)) >= SMALLEST_SHARE:
                found.append(Exchange(less, more, share))
    return found


def told(one: str, exchange: Exchange, other: str) -> str:
    """A difference in kernels as text: ``conv3d ran as slow_conv3d in one and as oneDNN in other``."""
    (asked, ran), (asked_too, ran_too) = _in_words(exchange.lost), _in_words(exchange.gained)
    again = "" if asked == asked_too else f"{asked_too} "
    calls = min(sum(exchange.lost.values()), sum(exchange.gained.values()))
    much = f"{calls} {'call' if calls == 1 else 'calls'}, {exchange.share:.0%} of the time of {one}"
    return f"{asked} ran as {ran} in {one} and {again}as {ran_too} in {other} ({much})"


def caveats(baseline: str, kernels: Kernels | None, others: Iterable[tuple[str, Kernels | None, bool]]) -> list[str]:
    """Caveats about different kernels, as sentences for a reader of speed-ups over a baseline.

    Args:
        others: name, kernels, and whether it runs a rewritten model, which may be meant to get other kernels.
    """
    found: dict[str, list[tuple[str, Exchange, bool]]] = {}
    for name, own, rewritten in others:
        for exchange in exchanged(kernels or {}, own or {}):
            alike = f"{rewritten} {_in_words(exchange.lost)} {_in_words(exchange.gained)}"
            found.setdefault(alike, []).append((name, exchange, rewritten))
    return [
        f"{told(baseline, same[0][1], _listed([name for name, *_ in same]))}: {REWRITTEN if same[0][2] else SAME_MODEL}"
        for same in found.values()
    ]


SAME_MODEL = "a part of the difference in time is due to PyTorch's choice of kernel, not to concurrency."
REWRITTEN = "other kernels are a part of the effect of this rewriting."


def _family(name: str, column: int) -> str | None:
    """The family whose operators (column 0) or kernels (column 1) have this name; else None."""
    if "::" not in name:  # most names of a trace are Python's or the kit's
        return None
    return next((family for family, patterns in FAMILIES.items() if re.fullmatch(patterns[column], name)), None)


def _label(name: str) -> str:
    """The usual name of an implementation."""
    library = next((label for part, label in LIBRARIES.items() if part in name), None)
    if library is None and re.fullmatch(FAMILIES["matrix product"].ran, name):
        return "BLAS"
    return library or _short(name)


def _short(name: str) -> str:
    return name.rpartition("::")[2].strip("_")


def _of(side: Kernels, family: str, names: Mapping[str, int]) -> dict[Kernel, int]:
    """The kernels with these names; calls of an operator that has several kernels are assigned in order."""
    left, found = dict(names), {}
    for kernel, use in side.items():
        if kernel.family == family and left.get(kernel.name):
            found[kernel] = min(use.calls, left[kernel.name])
            left[kernel.name] -= found[kernel]
    return found


def _in_words(calls: Mapping[Kernel, int]) -> tuple[str, str]:
    asked = _listed(sorted({kernel.operator for kernel in calls}))
    return asked, _listed(sorted({kernel.name for kernel in calls}))


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
