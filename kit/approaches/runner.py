"""A runner: a prepared model or function, bound to its inputs, ready to be called and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn

from kit import executors
from kit.equality import as_args
from kit.errors import ShapeError
from kit.executors import Executor
from kit.inputs import Args
from kit.reprs import one_line


@runtime_checkable
class Runner(Protocol):
    """Something that can be measured and recorded. It is bound to its inputs, and called without arguments.

    >>> from kit import approaches
    >>> with approaches.parse("sequential").prepare(nn.Linear(8, 4).eval(), torch.rand(1, 8)) as runner:
    ...     isinstance(runner, approaches.Runner), runner().shape
    (True, torch.Size([1, 4]))
    """

    @property
    def inputs(self) -> Args:
        """The inputs of every call; empty if only the runner itself knows them."""

    @property
    def intra_op_threads(self) -> int:
        """Intra-op threads of the calling thread during this runner's turn."""

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each lane; None: the kit does not set them."""

    @property
    def cold(self) -> bool:
        """Whether every call starts from nothing, so that one call does not warm up the next."""

    @property
    def prepare_s(self) -> float:
        """Seconds that rewriting the model took (copying, exporting, compiling). No timing includes them."""

    def __call__(self) -> Any:
        """One call on its inputs; returns the output."""

    def close(self) -> None:
        """Release the threads and processes that it owns. Closing twice is harmless."""


class _Closing(AbstractContextManager[Any]):
    def close(self) -> None:
        """Release what it owns."""

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(repr=False, eq=False)
class ModelRunner(_Closing):
    """A model whose regions run on an executor, as a :class:`Runner`. As a context manager, it closes itself.

    If it was prepared with a dict of keyword arguments, :meth:`run` takes such a dict.

    >>> from kit import approaches
    >>> layer = nn.Linear(8, 4).eval()
    >>> with approaches.parse("sequential(threads=1)").prepare(layer, torch.rand(1, 8)) as runner:
    ...     runner().shape, runner.intra_op_threads
    (torch.Size([1, 4]), 1)
    """

    model: nn.Module
    inputs: Args  # positional
    executor: Executor
    intra_op_threads: int
    prepare_s: float = 0.0
    keywords: tuple[str, ...] = field(default=())  # whose values are the inputs, where it was prepared with a dict
    remarks: tuple[str, ...] = ()  # caveats for a reader of its results, as sentences

    def __call__(self) -> Any:
        with executors.use(self.executor):
            return self.model(*self.inputs)

    def run(self, inputs: Any) -> Any:
        """One call on other inputs, which must have the shapes that it was prepared for; returns the output.

        Args:
            inputs: a tensor, a tuple of arguments or a dict of keyword arguments, of the same kind as in prepare.

        Raises:
            ShapeError: keywords that differ from those it was prepared with.
        """
        if self.keywords:
            if not isinstance(inputs, Mapping) or inputs.keys() != set(self.keywords):
                given = ", ".join(map(str, inputs)) if isinstance(inputs, Mapping) else "no dict"
                raise ShapeError(f"prepared for the keywords {', '.join(self.keywords)}, but was given {given}.")
            inputs = tuple(inputs[name] for name in self.keywords)
        with executors.use(self.executor):
            return self.model(*as_args(inputs))

    @property
    def cold(self) -> bool:
        """Whether every call starts from nothing."""
        return self.executor.cold

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each lane; None: the executor does not set them."""
        return self.executor.lane_threads

    def close(self) -> None:
        """Release the executor's threads and processes."""
        self.executor.close()

    def __repr__(self) -> str:
        return (
            f"ModelRunner({type(self.model).__name__} on {self.executor!r}, {self.intra_op_threads} intra-op threads)"
        )


@one_line
@dataclass(eq=False)
class FunctionRunner(_Closing):
    """A function without arguments as a :class:`Runner`.

    >>> from kit.approaches import FunctionRunner
    >>> x = torch.rand(8, 8)
    >>> with FunctionRunner(lambda: x @ x) as runner:
    ...     runner().shape
    torch.Size([8, 8])
    """

    call: Callable[[], Any]
    end: Callable[[], None] = lambda: None
    intra_op_threads: int = 1
    lane_threads: int | None = None
    cold: bool = False
    inputs: Args = ()
    prepare_s: float = 0.0

    def __call__(self) -> Any:
        return self.call()

    def close(self) -> None:
        """Release what it owns."""
        self.end()
