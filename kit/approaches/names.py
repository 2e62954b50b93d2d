"""Approaches by name: what people write, read into an :class:`Approach`."""

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
    """Every approach of the registry, with the sentence why it cannot run on this machine (default: here) or None."""
    machine = machine or hardware.detect()
    return {kind: entry.unavailable_because(machine) for kind, entry in REGISTRY.items()}


def parse(text: str, known: Mapping[str, Entry] = REGISTRY) -> Approach:
    """An approach from its name and options, as in ``threads(workers=2)`` or ``channels_last + compiled + threads``.

    Args:
        known: the entries to choose from.

    Raises:
        UnknownNameError: no such approach, or none of its options; the message names the near ones.
        KitError: the text is not names with ``option=value`` in parentheses, a value that the option does not take, or
            terms that do not go together.
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
            raise KitError(f"{kind}({option}={value}): {option} is one of {', '.join(choices)}.")
    return options


# What others call it, as far as it is no name in the registry itself; without capitals, spaces and signs.
_ALSO_CALLED = {
    "sequential": "baseline eager serial plain",
    "threads": "threading threadpool threadpoolexecutor multithreading",
    "processes": "multiprocessing mp fork spawn torchmultiprocessing processpool processpoolexecutor",
    "ranks": "distributed torchdistributed ddp distributeddataparallel gloo torchrun mpi",
    "channels_last": "nhwc memoryformat",
    "folded": "fuse fused fusion fold bnfolding batchnormfolding",
    "compiled": "compile torchcompile inductor torchinductor dynamo torchdynamo",
    "cuda_streams": "stream cudastream torchcudastream",
    "graphed": "cudagraph cudagraphs torchcudagraph torchcudagraphs",
    "scripted_fork": "fork jit jitfork torchjitfork torchscript script torchjit torchjitscript",
    "replicated": "dp dataparallel nndataparallel torchnndataparallel",
    "onnxruntime": "onnx ort",
    "devices": "multigpu modelparallel",
}


def meant(text: str, known: Mapping[str, Entry] = REGISTRY) -> list[str]:
    """Those of the known approaches that are elsewhere called this: ``torch.compile`` is ``compiled``."""
    plain = re.sub(r"[\W_]", "", text.partition("(")[0].lower())
    if text.strip() in known:
        return []
    return [kind for kind, also in _ALSO_CALLED.items() if kind in known and plain in also.split()]


def split_names(names: str | Iterable[str]) -> list[str]:
    """Names with commas or spaces between, as a command line gives them, or several such texts; all in one list.

    Neither separates within parentheses, nor spaces around a ``+``, nor in what others call it (``cuda graphs``).

    Raises:
        KitError: there is no name, or something that is no text.
    """
    found: list[str] = []
    for text in names if isinstance(names, Iterable) and not isinstance(names, str) else [names]:
        if not isinstance(text, str):
            raise KitError(
                f"an approach is named by a string, as in 'threads', and this is {shapes((text,))}: several inputs of "
                "a model go into one tuple, and approaches after it."
            )
        for part in re.split(r",(?![^()]*\))", text):
            glued = re.sub(r"\s*([+(])\s*", r"\1", part.strip())
            found += [part.strip()] if meant(part) else re.split(r"\s+(?![^()]*\))", glued)
    if not any(found):
        raise KitError("there is no approach to compare: name some, as in 'sequential,threads'.")
    return list(filter(None, found))
