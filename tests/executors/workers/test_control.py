"""The connection between rank 0 and another rank: who may come in, and what happens when the other end is silent."""

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from kit.errors import WorkerError
from kit.executors.workers.control import Control, Door, knock, ready


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    door = Door()
    ours = knock("127.0.0.1", door.port, door.token, 5)
    theirs = door.let_in(time.monotonic() + 5)
    door.close()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_and_an_end_that_is_gone_is_an_error(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    before = ours.send("run", 3, b"bytes")
    assert theirs.receive() == ("run", 3, b"bytes")
    assert theirs.arrived_ns > before
    ours.close()
    assert ready([theirs], time.monotonic() + 5) == [theirs]
    with pytest.raises(EOFError):
        theirs.receive()


def test_who_does_not_know_the_token_is_not_let_in() -> None:
    door = Door()
    for wrong in (bytes(32), b"short"):
        stranger = knock("127.0.0.1", door.port, wrong, 5)
        stranger.close()
    known = knock("127.0.0.1", door.port, door.token, 5)
    known.send("it is me")
    found = door.let_in(time.monotonic() + 5)
    assert found.receive() == ("it is me",)
    with pytest.raises(WorkerError, match="did not connect"):
        door.let_in(time.monotonic() + 0.1)
    door.close()
    known.close()
    found.close()


def test_without_a_way_to_rank_0_it_says_where_it_tried() -> None:
    door = Door()
    door.close()
    with pytest.raises(WorkerError, match=rf"rank 0 at 127.0.0.1, port {door.port} \(Connection refused\)"):
        knock("127.0.0.1", door.port, door.token, 5)


def test_a_message_that_stops_on_its_way_is_waited_for_no_longer_than_is_said() -> None:
    door = Door()
    raw = socket.create_connection(("127.0.0.1", door.port))
    raw.sendall(door.token + struct.pack("!i", 1000) + b"only the beginning")
    theirs = door.let_in(time.monotonic() + 5)
    door.close()
    begun = time.monotonic()
    with pytest.raises(OSError, match="unavailable"):
        theirs.receive(0.3)
    assert time.monotonic() - begun < 5
    raw.close()
    theirs.close()


def test_nothing_is_ready_before_a_message_comes(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    assert ready([theirs], time.monotonic() + 0.05) == []
    threading.Timer(0.05, lambda: ours.send("late")).start()
    assert ready([theirs, ours], time.monotonic() + 5) == [theirs]
