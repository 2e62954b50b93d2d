"""What single notebooks need beside the kit: exercise checks, and sentences computed from measurements."""

from kit.labs import (
    causes,
    choose,
    continual,
    feeding,
    gpu,
    inception,
    modules,
    opencv_dnn,
    openmp,
    processes,
    profiles,
    start,
    threads,
    transports,
    two_stream,
)
from kit.labs.checks import Check
from kit.labs.conclusions import card, decided, fastest, told
from kit.labs.sentences import describe, overlap_share, reached
from kit.labs.speed import rounds, size
from kit.views.badged import badged

__all__ = [
    "Check",
    "badged",
    "card",
    "causes",
    "choose",
    "continual",
    "decided",
    "describe",
    "fastest",
    "feeding",
    "gpu",
    "inception",
    "modules",
    "opencv_dnn",
    "openmp",
    "overlap_share",
    "processes",
    "profiles",
    "reached",
    "rounds",
    "size",
    "start",
    "threads",
    "told",
    "transports",
    "two_stream",
]
