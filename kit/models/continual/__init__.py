"""Continual inference: a network over clips, run one frame at a time, each frame computed once."""

from kit.models.continual.attention import SlidingAttention
from kit.models.continual.convert import State, Stepper, stepper
from kit.models.continual.network import shallow_two_stream_3d
from kit.models.continual.pure import PureStep
from kit.models.continual.reach import Reach
from kit.models.continual.steps import Crop

__all__ = ["Crop", "PureStep", "Reach", "SlidingAttention", "State", "Stepper", "shallow_two_stream_3d", "stepper"]
