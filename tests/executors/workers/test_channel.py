"""What goes in at one end of a channel comes out at the other, bit by bit, and belongs to the receiver."""

import errno
import functools
import gc
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kit.errors import TransferError
from kit.executors.workers.channel import Channel
from kit.executors.workers.pickling import dump, load

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="descriptors are counted on Linux")

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8]
DTYPES += [torch.bool, torch.complex64, torch.float8_e4m3fn]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(connection, os.getpid()) for connection in Pipe(duplex=True))
    yield ours, theirs
    ours.close()
    theirs.close()


def across(ends: tuple[Channel, Channel], message: Any, *, lend: bool = False) -> Any:
    """Send from a thread, so that a message larger than the pipe's buffer does not wait for itself."""
    thread = threading.Thread(target=ends[0].send, args=(message,), kwargs={"lend": lend})
    thread.start()
    received = ends[1].receive()
    thread.join()
    return received


def there_and_back(ends: tuple[Channel, Channel], message: Any) -> Any:
    return across(ends[::-1], across(ends, message))  # type: ignore[arg-type]


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN is NaN, and -0 is not 0."""
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    a, b = (torch.empty(x.shape, dtype=x.dtype).copy_(x.detach()).reshape(-1) for x in (a, b))
    return a.numel() == 0 or torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return same_bits(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    x = random_tensor(draw(st.sampled_from(DTYPES)), shape)
    match draw(st.sampled_from(["as it is", "transposed", "every other", "expanded", "channels last", "offset"])):
        case "transposed" if x.ndim >= 2:
            x = x.transpose(0, -1)
        case "every other" if x.ndim:
            x = x[::2]
        case "expanded" if x.ndim and len(x):
            x = x[:1].expand(3, *x.shape[1:])
        case "channels last" if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        case "offset" if x.ndim:
            x = x[1:]
    if x.is_complex() and draw(st.booleans()):
        x = draw(st.sampled_from([x.conj(), x.conj().imag]))
    return x


messages = st.recursive(
    tensors() | st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(st.tuples(messages, st.booleans()), min_size=1, max_size=4))
def test_any_sequence_of_messages_arrives_as_it_was_sent(ends: tuple[Channel, Channel], sequence: list[Any]) -> None:
    """The memory of one message is used again for the next, which is larger, smaller or of another kind."""
    kept, back = [], []
    for message, lend in sequence:
        kept.append(across(ends, message, lend=lend))
        back.append(across(ends[::-1], kept[-1]))  # type: ignore[arg-type]
    for got in (kept, back):
        assert all(same(arrived, message) for arrived, (message, _) in zip(got, sequence, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_growing_and_shrinking(ends: tuple[Channel, Channel], dtype: torch.dtype) -> None:
    sent = [random_tensor(dtype, (size, 3)) for size in (0, 1, 1000, 10, 100_000, 0, 99_999, 200_000)]
    received = [there_and_back(ends, x) for x in sent]
    assert all(map(same_bits, received, sent))


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d),
        torch.randn(6, 4).t(),
        torch.randn(3, 4, 5).permute(2, 0, 1),
        torch.randn(2, 1, 4),
    ],
    ids=lambda x: str(x.stride()),
)
def test_dense_tensors_keep_their_memory_format(ends: tuple[Channel, Channel], x: Tensor) -> None:
    received = across(ends, x)
    assert same_bits(received, x)
    assert received.stride() == x.stride()


def test_a_slice_does_not_bring_the_whole(ends: tuple[Channel, Channel]) -> None:
    received = across(ends, torch.randn(1000, 1000)[:, 3:5])
    assert received.untyped_storage().nbytes() == 1000 * 2 * 4


def test_both_sides_own_what_they_have(ends: tuple[Channel, Channel]) -> None:
    sent = torch.arange(10.0)
    first = across(ends, sent)
    second = across(ends, sent + 1)
    assert not sent.is_shared()
    assert not first.is_shared()
    assert torch.equal(first, torch.arange(10.0))  # the next message did not change it
    first.fill_(-1)
    assert torch.equal(second, torch.arange(10.0) + 1)
    assert torch.equal(sent, torch.arange(10.0))


KEEPERS: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda x: x,
    "a view": lambda x: x[3:5],
    "an array": lambda x: x.numpy(),
    "what is saved for backward": lambda x: (x * torch.ones(1, requires_grad=True)).grad_fn,
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_was_lent_and_is_kept_keeps_its_values(ends: tuple[Channel, Channel], keeper: str) -> None:
    kept = []
    for n in range(4):
        x = across(ends, torch.full((1000,), float(n)), lend=True)
        kept.append(KEEPERS[keeper](x))
        del x
        ends[1].send("answer")
        assert ends[0].receive() == "answer"
    for n, thing in enumerate(kept):
        values = thing if hasattr(thing, "max") else thing._saved_self
        assert float(values.min()) == float(values.max()) == n
    assert mappings() >= 4
    del thing, values, kept
    gc.collect()
    assert mappings() <= 2  # what is no longer kept is given back


def test_what_was_lent_is_the_memory_itself_and_used_again(ends: tuple[Channel, Channel]) -> None:
    addresses = set()
    for n in range(5):
        x = across(ends, torch.full((1000,), float(n)), lend=True)
        addresses.add(x.data_ptr())
        body = ends[1].pack(x.mul_(2))
        del x
        ends[1].post(body)
        assert torch.equal(ends[0].receive(), torch.full((1000,), 2.0 * n))
    assert len(addresses) == 1


def test_a_model_and_its_weights(ends: tuple[Channel, Channel]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    model[0].weight.requires_grad_(False)
    received = across(ends, (model,))[0]
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(received(x), model(x))
    assert not any(value.is_shared() for value in [*model.state_dict().values(), *received.state_dict().values()])
    assert [p.requires_grad for p in received.parameters()] == [p.requires_grad for p in model.parameters()]


def test_one_tensor_in_two_places_stays_one(ends: tuple[Channel, Channel]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    buffer = torch.zeros(3)
    received, a, b = across(ends, (model, buffer, [buffer]))
    assert received[1].weight is received[0].weight
    assert a is b[0]


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning", "ignore:TypedStorage is deprecated")
def test_what_is_no_plain_tensor_travels_as_well(ends: tuple[Channel, Channel]) -> None:
    sparse = torch.eye(3).to_sparse()
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    meta = torch.empty(3, device="meta")
    parameter = nn.Parameter(torch.ones(2))
    received = across(ends, (sparse, quantized, meta, parameter))
    assert torch.equal(received[0].to_dense(), torch.eye(3))
    assert torch.equal(received[1].dequantize(), quantized.dequantize())
    assert (received[2].device.type, received[2].shape) == ("meta", (3,))
    assert isinstance(received[3], nn.Parameter)


def test_inference_tensors_and_tensors_with_a_graph(ends: tuple[Channel, Channel]) -> None:
    with torch.inference_mode():
        made = torch.ones(3) * 2
    assert torch.equal(across(ends, made), torch.full((3,), 2.0))
    with torch.inference_mode():
        assert torch.equal(across(ends, made), torch.full((3,), 2.0))
    grown = torch.ones(3, requires_grad=True) * 3
    received = across(ends, grown)
    assert torch.equal(received, torch.full((3,), 3.0))
    assert not received.requires_grad


# What cannot travel ---------------------------------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self, **things: Any) -> None:
        super().__init__()
        for name, thing in things.items():
            setattr(self, name, thing)


def cyclic() -> Holder:
    """Its parts hold each other, and one of them a lock."""
    outer, inner = Holder(), Holder(lock=threading.Lock())
    inner.__dict__["owner"] = outer
    outer.inner = inner
    return outer


def closing_over(thing: Any) -> Any:
    return lambda x: (x, thing)


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (Holder(lock=threading.Lock()), "lock is a lock"),
        (Holder(net=nn.Sequential(Holder(lock=threading.Lock()))), "net.0.lock is a lock"),
        (nn.ModuleDict({"a": Holder(lock=threading.Lock())}), "a.lock is a lock"),
        (Holder(settings={"deep": [1, (threading.Lock(),)]}), "settings.deep.1.0 is a lock"),
        (Holder(stream=(i for i in range(3))), "stream is a generator"),
        (closing_over(Holder(lock=threading.Lock())), "thing.lock is a lock"),
        (functools.partial(print, threading.Lock()), "args.0 is a lock"),
        (Holder(lock=threading.Lock()).forward, "self.lock is a lock"),
        (Holder(things={threading.Lock()}), "things.0 is a lock"),
        (cyclic(), "inner.lock is a lock"),
        (threading.Lock(), "the message is a lock"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_travel_is_named_with_the_way_to_it(ends: tuple[Channel, Channel], thing: Any, path: str) -> None:
    with pytest.raises(TransferError) as caught:
        ends[0].send(thing)
    assert str(caught.value).startswith(f"{path}, which cannot be pickled, so it cannot be sent to another process")
    assert "__getstate__" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert across(ends, "still works") == "still works"


def test_an_open_file_cannot_travel(ends: tuple[Channel, Channel], tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file, pytest.raises(TransferError, match=r"log is a BufferedWriter"):
        ends[0].send(Holder(log=file))


def fails_to_load() -> None:
    raise OSError("no such weights")


class FailsToLoad:
    def __reduce__(self) -> Any:
        return fails_to_load, ()


def test_what_cannot_be_rebuilt_is_an_error_and_the_channel_still_works(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(TransferError, match=r"cannot be rebuilt in this process \(OSError: no such weights\)"):
        across(ends, (torch.ones(3), FailsToLoad()))
    assert same(there_and_back(ends, torch.ones(5)), torch.ones(5))


def test_no_memory_is_an_error_with_the_remedy_and_the_channel_still_works(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(TransferError, match=r"no memory to send 4 MiB.*give this container more memory"):
            ends[0].send(torch.ones(2**20))
    assert descriptors() == before
    assert same(there_and_back(ends, torch.ones(2**20)), torch.ones(2**20))


def test_the_other_end_is_gone(ends: tuple[Channel, Channel]) -> None:
    ends[1].close()
    with pytest.raises((EOFError, OSError)):
        ends[0].receive()
    with pytest.raises(OSError, match="pipe"):
        ends[0].send(torch.ones(3))


# Memory ---------------------------------------------------------------------------------------------------------------


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def mappings(of: str = "memfd:kit") -> int:
    return Path("/proc/self/maps").read_text().count(of)


def test_nothing_has_a_name_and_everything_is_given_back() -> None:
    gc.collect()
    before, named = (descriptors(), mappings()), mappings("/dev/shm")
    ours, theirs = (Channel(connection, os.getpid()) for connection in Pipe(duplex=True))
    for size in (10, 1000, 100_000, 1_000_000):
        there_and_back((ours, theirs), torch.ones(size))
    assert (descriptors(), mappings()) == (before[0] + 6, before[1] + 4)  # a pipe, and memory each way, at both ends
    assert mappings("/dev/shm") == named
    ours.close()
    theirs.close()
    del ours, theirs
    assert (descriptors(), mappings()) == before


@pytest.mark.parametrize("refused", ["os.memfd_create", "mmap.mmap", "socket.fromfd"])
def test_what_the_system_refuses_is_said_and_the_next_message_arrives(
    ends: tuple[Channel, Channel], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    x = torch.arange(1000)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(refused, refuse)
        with pytest.raises(TransferError, match=r"no memory to send 0 MiB to process \d+ \(Too many.*ulimit -n"):
            ends[0].send(x)
    assert descriptors() == before
    assert torch.equal(across(ends, x), x)


def test_cold_messages_need_no_memory() -> None:
    sent = {"x": torch.randn(3), "model": nn.Linear(2, 2)}
    received = load(dump(sent))
    assert torch.equal(received["x"], sent["x"])
    assert not sent["x"].is_shared()
    assert not sent["model"].weight.is_shared()
    assert pickle.loads(dump((1, 2))) == (1, 2)
