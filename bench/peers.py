"""The benchmark's peers: the code that one would write without the kit. Their workers import this file."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch import multiprocessing as torch_multiprocessing

SPAWN = multiprocessing.get_context("spawn")


class Peer:
    """A runner, as :class:`kit.approaches.Runner` describes one: bound to its inputs, called with nothing, closed."""

    inputs: tuple[Any, ...] = ()
    intra_op_threads = 1
    lane_threads: int | None = None
    cold = False
    prepare_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


# One tensor there and back --------------------------------------------------------------------------------------------


def echo(connection: Any, inputs: Tensor, outputs: Tensor) -> None:
    torch.set_num_threads(1)
    while connection.recv_bytes() == b"go":
        outputs.copy_(inputs)
        connection.send_bytes(b"done")


class SharedEcho(Peer):
    """A worker, a pipe for a word there and back, and a shared tensor for each direction, made for one function."""

    def __init__(self, x: Tensor) -> None:
        self.inputs = (x,)
        self.there, self.back = torch.empty_like(x).share_memory_(), torch.empty_like(x).share_memory_()
        self.connection, theirs = SPAWN.Pipe()
        context = torch_multiprocessing.get_context("spawn")
        self.process = context.Process(target=echo, args=(theirs, self.there, self.back), daemon=True)
        self.process.start()

    def __call__(self) -> Tensor:
        self.there.copy_(self.inputs[0])
        self.connection.send_bytes(b"go")
        self.connection.recv_bytes()
        return self.back.clone()

    def close(self) -> None:
        self.connection.send_bytes(b"end")
        self.process.join()


def identity(x: Any) -> Any:
    return x


class PoolEcho(Peer):
    """``Pool.map`` of a function over one array: pickled there and back."""

    def __init__(self, x: Tensor) -> None:
        self.inputs, self.pool = (x,), SPAWN.Pool(1)

    def __call__(self) -> Tensor:
        (result,) = self.pool.map(identity, [self.inputs[0].numpy()])
        return torch.from_numpy(result)

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


# Branches side by side ------------------------------------------------------------------------------------------------


def serve(branch: nn.Module, requests: Any, replies: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        while (x := requests.get()) is not None:
            replies.put(branch(x))


class Queues(Peer):
    """A persistent worker per branch with torch.multiprocessing queues; an input for each branch."""

    def __init__(
        self, branches: Mapping[str, nn.Module], merge: Any, inputs: Sequence[Tensor], threads: int, cores: int
    ) -> None:
        context = torch_multiprocessing.get_context("spawn")
        self.merge, self.inputs, self.intra_op_threads, self.lane_threads = merge, tuple(inputs), cores, threads
        self.requests = [context.Queue() for _ in branches]
        self.replies = [context.Queue() for _ in branches]
        # Copies: what is sent as it is, is moved into shared memory in the sender's hands.
        self.processes = [
            context.Process(target=serve, args=(copy.deepcopy(branch), requests, replies, threads), daemon=True)
            for branch, requests, replies in zip(branches.values(), self.requests, self.replies, strict=True)
        ]
        for process in self.processes:
            process.start()

    def __call__(self) -> Any:
        for x, requests in zip(self.inputs, self.requests, strict=True):
            requests.put(x.clone())
        return self.merge([replies.get() for replies in self.replies])

    def close(self) -> None:
        for requests in self.requests:
            requests.put(None)
        for process in self.processes:
            process.join()


branches_here: dict[str, nn.Module] = {}  # a pool's worker has no other place for its model


def load(branches: Mapping[str, nn.Module], threads: int) -> None:
    torch.set_num_threads(threads)
    branches_here.update(branches)


def forward(work: tuple[str, Tensor]) -> Tensor:
    name, x = work
    with torch.inference_mode():
        out: Tensor = branches_here[name](x)
    return out


class Pool(Peer):
    """``multiprocessing.Pool``, kept open, the model loaded by its initializer; an input for each branch."""

    def __init__(
        self, branches: Mapping[str, nn.Module], merge: Any, inputs: Sequence[Tensor], threads: int, cores: int
    ) -> None:
        self.names, self.merge, self.inputs = list(branches), merge, tuple(inputs)
        self.intra_op_threads, self.lane_threads = cores, threads
        loaded = {name: copy.deepcopy(branch) for name, branch in branches.items()}
        self.pool = SPAWN.Pool(len(branches), load, (loaded, threads))

    def __call__(self) -> Any:
        work = [(name, x.clone()) for name, x in zip(self.names, self.inputs, strict=True)]
        return self.merge(self.pool.map(forward, work, chunksize=1))

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()
