"""How far the clock of another host is from this host's clock, measured by requests and replies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from kit.reprs import one_line
from kit.spans import Span

DRIFT = 0.001  # seconds a second, at most: two crystals, each 50e-6 off, and NTP, which slews each by up to 500e-6
KEPT = 64  # samples
EXCHANGES = 16  # to compare two clocks


@one_line
class Sample(NamedTuple):
    """The offset between two clocks, as one request and its reply show it."""

    offset_ns: int  # the other clock minus this one
    uncertainty_ns: int  # the true offset is at most this far from it, whichever way the network delayed more
    taken_ns: int  # when, on this clock

    @classmethod
    def of(cls, sent_ns: int, arrived_ns: int, answered_ns: int, received_ns: int) -> Sample:
        """One sample by `Cristian's algorithm <https://en.wikipedia.org/wiki/Cristian%27s_algorithm>`_.

        Args:
            sent_ns, received_ns: the request left and its reply came, on this clock.
            arrived_ns, answered_ns: the request came and its reply left, on the other clock.
        """
        travelled = (received_ns - sent_ns) - (answered_ns - arrived_ns)
        offset = ((arrived_ns - sent_ns) + (answered_ns - received_ns)) // 2
        return cls(offset, max(0, -(-travelled // 2)), received_ns)

    def at(self, now_ns: int) -> Sample:
        """The same sample some time later: the clocks may have drifted apart meanwhile."""
        age = abs(now_ns - self.taken_ns)
        return Sample(self.offset_ns, self.uncertainty_ns + round(DRIFT * age), now_ns)


class OtherClock:
    """The clock of another host, known from several samples."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    def best(self, now_ns: int) -> Sample:
        """The sample with the smallest uncertainty now. There must be a sample."""
        return min((sample.at(now_ns) for sample in self._samples), key=lambda each: each.uncertainty_ns)


def on_this_clock(spans: Iterable[Span], host: str, aligned: Sample) -> list[Span]:
    """Spans of another host, on this host's clock; the name of their process says the host."""
    return [
        span._replace(
            start_ns=span.start_ns - aligned.offset_ns,
            end_ns=span.end_ns - aligned.offset_ns,
            process=f"{host}: process {span.process}",
            host=host,
        )
        for span in spans
    ]
