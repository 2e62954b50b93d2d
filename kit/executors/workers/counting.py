"""How many bytes of tensors a call hands over to other processes, and gets back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from kit import spans


def count(handed_over: Iterable[tuple[Any, Any]]) -> None:
    """Add to the log that collects: the inputs that went in one message, and the results that came back, of each."""
    log = spans.current()
    if log is not None:
        for sent, received in handed_over:
            log.sent_bytes += tensor_bytes(sent)
            log.received_bytes += tensor_bytes(received)


def tensor_bytes(values: Any) -> int:
    """The bytes of all tensors in nested tuples, lists and dicts; a tensor that is there twice counts once."""
    tensors = {id(each): each.nbytes for each in tree_leaves(values) if isinstance(each, Tensor)}
    return sum(tensors.values())
