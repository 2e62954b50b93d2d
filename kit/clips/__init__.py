"""Video in: files, folders of pictures, generated scenes with exact motion, and optical flow.

A two-stream network looks at a clip twice: at one RGB frame (what is there) and at a stack of optical flow fields (how
it moves). This room makes both. :func:`load` decodes any video file that OpenCV can, :func:`stream` the long ones;
:func:`generate` paints a scene whose true motion is known at every pixel, so that :func:`end_point_error` can say how
good an estimated flow is; :func:`labelled` paints one object whose texture and motion are known by name.

Flow is in pixels per frame, ``(dx, dy)``, from frame t to t + 1: what is at ``(x, y)`` in frame t is at
``(x + dx, y + dy)`` in frame t + 1. OpenCV and scikit-image are imported where they are used.
"""

from kit.clips.blob import SIDE, bgr_blob
from kit.clips.clip import DEFAULT_FPS, SMALLEST, Clip
from kit.clips.files import load, save, stream
from kit.clips.flow import (
    FLOW_METHODS,
    RGB_MEAN,
    RGB_STD,
    end_point_error,
    flow_stack,
    middle,
    optical_flow,
    rgb_input,
    two_stream_inputs,
)
from kit.clips.generated import PHOTOGRAPHS, generate, labelled
from kit.clips.scenes import MOTIONS, TEXTURES, Camera

__all__ = [
    "DEFAULT_FPS",
    "FLOW_METHODS",
    "MOTIONS",
    "PHOTOGRAPHS",
    "RGB_MEAN",
    "RGB_STD",
    "SIDE",
    "SMALLEST",
    "TEXTURES",
    "Camera",
    "Clip",
    "bgr_blob",
    "end_point_error",
    "flow_stack",
    "generate",
    "labelled",
    "load",
    "middle",
    "optical_flow",
    "rgb_input",
    "save",
    "stream",
    "two_stream_inputs",
]
