"""Networks built from regions, so that every approach works on all of them."""

from kit.models import plain
from kit.models.inception import inception_block
from kit.models.inception2d import googlenet, inception_v3
from kit.models.inception3d import inception3d_block, inflate, two_stream_i3d
from kit.models.two_stream import TwoStream, toy_two_stream, trained_two_stream, two_stream
from kit.models.weights import load_weights

__all__ = [
    "TwoStream",
    "googlenet",
    "inception3d_block",
    "inception_block",
    "inception_v3",
    "inflate",
    "load_weights",
    "plain",
    "toy_two_stream",
    "trained_two_stream",
    "two_stream",
    "two_stream_i3d",
]
