"""Approaches by name: reads the text that a user writes into an :class:`Approach`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from kit.approaches.approach import Approach, Term
from kit.approaches.registry import REGISTRY, Entry
from kit.equality import shapes
from kit.errors import KitError, UnknownNameError
from kit.machine import hardware


def available(machine: hardware.Hardware | None = None) -> dict[str, str | None]:
    """Every approach of the registry -> why it cannot run on a machine (default: this one), or None if it can.

    >>> from kit import approaches
    >>> reasons = approaches.available()
    >>> reasons["threads"] is None  # it can run here
    True
    """
    machine = machine or hardware.detect()
    return {kind: entry.unavailable_because(machine) for kind, entry in REGISTRY.items()}


def parse(text: str, known: Mapping[str, Entry] = REGISTRY) -> Approach:
    """An approach from its name and options, as in ``threads(workers=2)`` or ``channels_last + compiled + threads``.

    >>> from kit import approaches
    >>> approaches.parse("channels_last + threads(workers=2)").name
    'channels_last + threads(workers=2)'

    Args:
        known: the entries to choose from.

    Raises:
        UnknownNameError: no such approach or no such option; the message suggests similar names.
        KitError: the text cannot be read, an option does not take the value, or the steps cannot be combined.
    """
    return Approach(tuple(_term(part, text, known) for part in str(text).split("+")))


def _term(part: str, text: str, known: Mapping[str, Entry]) -> Term:
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", part)
    if meant(part, known):
        raise UnknownNameError("approach", part.strip(), known, meant(part, known))
    if not match:
        raise KitError(
            f"cannot read the approach {text!r}: write it as 'threads', 'threads(workers=2)' or 'folded + threads'."
        )
    kind, arguments = match.group(1), match.group(2) or ""
    if kind not in known:
        raise UnknownNameError("approach", kind, known)
    return Term(kind, _options(kind, arguments, known[kind]), known[kind])


def _options(kind: str, text: str, entry: Entry) -> dict[str, Any]:
    """Values from ``option=value``, with commas between.

    Raises:
        UnknownNameError: an option that is not known.
        KitError: a value that it does not take.
    """
    known, options = entry.options, {}
    for each in filter(None, (each.strip() for each in text.split(","))):
        option, _, value = (side.strip() for side in each.partition("="))
        if option not in known:
            raise UnknownNameError(f"option of {kind}", option, known)
        choices = {
            str(choice): choice for choice in ((True, False) if known[option] is bool else get_args(known[option]))
        }
        if int in (known[option], *choices.values()):
            if not value.isdecimal() or int(value) < entry.least:
                raise KitError(f"{kind}({option}={value}): {option} must be a whole number of at least {entry.least}.")
            options[option] = int(value)
        elif value in choices:
            options[option] = choices[value]
        else:
            raise KitError(f"{kind}({option}={value}): {option} must be one of {', '.join(choices)}.")
    return options


# What others call it, as far as it is no name in the registry itself; without capitals, spaces and signs.
_ALSO_CALLED = {
    "sequential": "baseline eager serial plain",
    "threads": "threading threadpool threadpoolexecutor multithreading",
    "processes": "multiprocessing mp fork spawn torchmultiprocessing processpool processpoolexecutor",
    "ranks": "distributed torchdistributed ddp distributeddataparallel gloo torchrun mpi",
    "cluster": "dask daskdistributed daskcluster",
    "channels_last": "nhwc memoryformat",
    "folded": "fuse fused fusion fold bnfolding batchnormfolding",
    "compiled": "compile torchcompile inductor torchinductor dynamo torchdynamo",
    "cuda_streams": "stream cudastream torchcudastream",
    "graphed": "cudagraph cudagraphs torchcudagraph torchcudagraphs",
    "scripted_fork": "fork jit jitfork torchjitfork torchscript script torchjit torchjitscript",
    "replicated": "dp dataparallel nndataparallel torchnndataparallel",
    "onnxruntime": "onnx ort",
    "openvino": "ov",
    "devices": "multigpu modelparallel",
}


def meant(text: str, known: Mapping[str, Entry] = REGISTRY) -> list[str]:
    """The known approaches that others call by this name: ``torch.compile`` is ``compiled``.

    >>> from kit import approaches
    >>> approaches.meant("torch.compile")
    ['compiled']
    """
    plain = re.sub(r"[\W_]", "", text.partition("(")[0].lower())
    if text.strip() in known:
        return []
    return [kind for kind, also in _ALSO_CALLED.items() if kind in known and plain in also.split()]


def split_names(names: str | Iterable[str]) -> list[str]:
    """One list of the names in a text, or in several texts; names are separated by commas or spaces.

    Commas and spaces in parentheses do not separate names, nor do spaces around ``+`` or in an alias (``cuda graphs``).

    >>> from kit import approaches
    >>> approaches.split_names("sequential, threads(workers=2), folded + threads")
    ['sequential', 'threads(workers=2)', 'folded+threads']

    Raises:
        KitError: there is no name, or something is not a string.
    """
    found: list[str] = []
    for text in names if isinstance(names, Iterable) and not isinstance(names, str) else [names]:
        if not isinstance(text, str):
            raise KitError(
                f"an approach must be a string, such as 'threads', but this is {shapes((text,))}. Put several inputs "
                "of a model into one tuple, and the approaches after it."
            )
        for part in re.split(r",(?![^()]*\))", text):
            glued = re.sub(r"\s*([+(])\s*", r"\1", part.strip())
            found += [part.strip()] if meant(part) else re.split(r"\s+(?![^()]*\))", glued)
    if not any(found):
        raise KitError("no approach was named: name at least one, as in 'sequential,threads'.")
    return list(filter(None, found))
