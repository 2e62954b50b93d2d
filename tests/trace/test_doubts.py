"""What is hard to believe is said, and changes no number."""

import pytest

from kit.trace import Event, Lane, Trace
from kit.trace.doubts import doubts

CPU, STREAM = Lane(1, 1, "main"), Lane(0, 7, "GPU 0 stream 7")
YEAR = 365 * 86_400 * 10**9


def told(*events: Event) -> list[str]:
    return list(doubts(Trace.build(events)))


def kernel(start: int, duration: int, stream: int = 7, name: str = "gemm") -> Event:
    return Event(name, "kernel", start, duration, STREAM._replace(thread=stream, label=f"GPU 0 stream {stream}"))


def test_kernels_that_overlap_on_one_stream() -> None:
    assert told(kernel(0, 10), kernel(10, 10), kernel(5, 10, stream=8)) == []
    (note,) = told(kernel(0, 100), kernel(10, 10, name="relu"), kernel(50, 10), kernel(100, 5), kernel(5, 10, 8))
    assert note.startswith("2 of 5 kernels and copies start before the previous work on their stream")
    assert "'relu' on GPU 0 stream 7" in note
    assert (
        told(Event("a", "cpu_op", 0, 10, CPU), Event("b", "cpu_op", 5, 10, CPU)) == []
    )  # a thread's is another matter


@pytest.mark.parametrize(("at", "side"), [(-30 * YEAR, "before"), (30 * YEAR, "after")])
def test_an_event_decades_away(at: int, side: str) -> None:
    usual = [Event("op", "cpu_op", i * 10**9, 10**8, CPU) for i in range(100)]
    assert told(*usual) == []
    (note,) = told(*usual, Event("stray", "cpu_op", at, 10, CPU))
    assert note.startswith("1 of 101 events are far from the others in time, the farthest of them 'stray', 10,9")
    assert f"days {side} them" in note


def test_pauses_are_not_far_away() -> None:
    hour = 3_600 * 10**9
    steps = [Event("op", "cpu_op", i * 2 * hour, 10**9, CPU) for i in range(5)]
    long = [Event("op", "cpu_op", i * hour // 2, hour, CPU) for i in range(50)]
    assert told(*long, Event("late", "cpu_op", 100 * hour, 10, CPU)) == []
    assert told(*steps[:1]) == []
    assert told() == []
