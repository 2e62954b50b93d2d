"""What single notebooks need beside the kit: exercise checks, and sentences computed from measurements."""

from kit.labs import choose, continual, inception, processes, threads, two_stream
from kit.labs.checks import Check
from kit.labs.sentences import describe, overlap_share
from kit.labs.speed import rounds, size

__all__ = [
    "Check",
    "choose",
    "continual",
    "describe",
    "inception",
    "overlap_share",
    "processes",
    "rounds",
    "size",
    "threads",
    "two_stream",
]
