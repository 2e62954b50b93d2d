"""Networks built from regions, so that every approach works on all of them."""

from kit.models.inception import inception_block
from kit.models.two_stream import TwoStream, toy_two_stream, trained_two_stream, two_stream
from kit.models.weights import load_weights

__all__ = ["TwoStream", "inception_block", "load_weights", "toy_two_stream", "trained_two_stream", "two_stream"]
