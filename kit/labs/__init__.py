"""What single notebooks need beside the kit: exercise checks, and sentences computed from measurements."""

from kit.labs import feeding, opencv_dnn, processes, two_stream
from kit.labs.checks import Check
from kit.labs.sentences import describe, overlap_share
from kit.labs.speed import rounds

__all__ = ["Check", "describe", "feeding", "opencv_dnn", "overlap_share", "processes", "rounds", "two_stream"]
